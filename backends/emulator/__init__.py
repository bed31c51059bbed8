"""The AWS wire in front of an engine: unmodified boto3 reaches this machine's endpoints through it.

For now it speaks InvokeEndpoint of the SageMaker Runtime API, and ListEndpoints and DescribeEndpoint of SageMaker's.
"""
