"""SageMaker's own language: specs ⇄ request and response documents; pure, written once, used everywhere."""
