"""SageMaker on AWS, through boto3."""
