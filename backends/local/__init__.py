"""SageMaker on this machine, in this process: an engine and a store."""
