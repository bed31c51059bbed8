"""What the application needs on AWS before its steps, what that costs, and what is left of it afterwards."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from backends.aws.account import AwsAccount
from backends.aws.buckets import Bucket
from backends.aws.costs import Item, load_prices, planned, shown, total
from backends.aws.images import ImageRepository
from backends.aws.roles import ExecutionRole, is_made_here
from backends.aws.standing import GLOBAL, Application, Survey
from backends.config import BackendConfig
from backends.errors import BackendError
from backends.naming import partition_of
from backends.specs import Plan, Request
from sentiment.image import REPOSITORY
from sentiment.pipeline import Pipeline
from sentiment.reporter import Reporter, Silent
from sentiment.settings import APPLICATION_TAG, PROJECT, SentimentSettings
from sentiment.webtier import WebTier

UNASKED_ACCOUNT = "000000000000"


@dataclass(frozen=True)
class Destroyed:
    """What is gone, and what is not, each with the reason."""

    removed: list[str]
    kept: list[str]


@dataclass(frozen=True, kw_only=True)
class Production:
    """One account and region; *config* and *settings* name the bucket and the role that are used there."""

    account: AwsAccount
    account_id: str
    config: BackendConfig
    settings: SentimentSettings
    reporter: Reporter

    @property
    def bills(self) -> bool:
        """False where another server stands in AWS's place."""
        return not self.account.is_elsewhere

    @property
    def requests(self) -> list[Request]:
        """What makes the things that the steps need, natively; each is only sent where its thing is missing."""
        return [*self._bucket.requests, *(self._role.requests if self._makes_role else ())]

    def plan(self, plans: Iterable[Plan]) -> list[Item]:
        """Everything that *plans* would make, and what they need: all that is made goes through here."""
        requests = [*self.requests, *(request for plan in plans for request in plan.requests)]
        return planned(requests, self.config.region)

    def announce(self, items: list[Item]) -> None:
        """Say where, what, and for how much."""
        where = f"AWS account {self.account_id}, region {self.config.region}"
        place = where if self.bills else f"{self.config.endpoint_url}, which stands for {where}, and bills nothing"
        self.reporter.say(f"on {place}, this is made unless it is there, at AWS's prices:")
        for item in items:
            self.reporter.say(f"  {item}")
        read = load_prices().read([self.config.region])
        self.reporter.say(
            f"prices on demand of {read} (backends/aws/prices.toml names the sources), "
            "without taxes, volumes, transfer and requests to S3"
        )

    def provide(self) -> None:
        """Make the bucket and the role unless they are there."""
        if self._bucket.ensure(self.account.client("s3")):
            self.reporter.say(f"bucket {self._bucket.name} is made")
        if self._makes_role and self._role.ensure(self.account.client("iam")):
            self.reporter.say(f"role {self._role.name} is made or set right")

    def survey(self) -> Survey:
        """Everything of the application that is up, in any region."""
        return self._application.survey()

    def destroy(self, pipeline: Pipeline, web_tier: WebTier) -> Destroyed:
        """Remove everything here, then look in every region whether anything is left."""
        removed, kept = list[str](), list[str]()

        def attempt(remove: Callable[[], list[str]]) -> None:
            try:
                removed.extend(remove())
            except BackendError as exc:
                kept.append(str(exc))

        attempt(web_tier.remove)
        attempt(pipeline.destroy)
        attempt(self._application.remove_logs)
        attempt(self._remove_bucket)
        attempt(self._remove_role)
        attempt(self._remove_images)
        attempt(lambda: self._look_around(kept))
        return Destroyed(removed, kept)

    # --- inside

    @property
    def _makes_role(self) -> bool:
        return is_made_here(self.config.role_arn)

    @property
    def _bucket(self) -> Bucket:
        return Bucket(name=self.config.bucket, account=self.account_id, region=self.config.region, tags=_TAGS)

    @property
    def _role(self) -> ExecutionRole:
        return _role(self.account_id, self.config.region, self.settings)

    @property
    def _application(self) -> Application:
        return Application(self.account, APPLICATION_TAG, PROJECT)

    def _remove_bucket(self) -> list[str]:
        s3 = self.account.client("s3")
        begun = self._bucket.abort_uploads(s3, f"{PROJECT}/")
        gone = [f"{begun} unfinished uploads"] if begun else []
        return [*gone, f"bucket {self._bucket.name}"] if self._bucket.remove(s3) else gone

    def _remove_role(self) -> list[str]:
        if self._makes_role and self._role.remove(self.account.client("iam")):
            return [f"role {self._role.name}"]
        return []

    def _remove_images(self) -> list[str]:
        if self.bills and ImageRepository(self.account, REPOSITORY, _TAGS).delete():
            return [f"image repository {REPOSITORY}"]
        return []

    def _look_around(self, kept: list[str]) -> list[str]:
        survey = self.survey()
        for item in survey.items:
            is_here = item.region in {self.config.region, GLOBAL}
            how = "" if is_here else f"; GREENROOM_REGION={item.region} removes what is there"
            kept.append(f"{item.kind} {item.name} is still there, in {item.region}{how}")
        for region, why in survey.unseen.items():
            self.reporter.say(f"{region} could not be looked at: {why}")
        return []


_TAGS = {APPLICATION_TAG: PROJECT}


def costs_document(production: Production, survey: Survey) -> dict[str, Any]:
    """What is up and what it costs, for programs; prices as strings, null where they are not known."""
    return {
        "account": production.account_id,
        "up": [asdict(item) for item in survey.items],
        "usd_per_hour": total(survey.items),
        "without_price": [item.name for item in survey.items if None in item.prices.values()],
        "unseen_regions": survey.unseen,
    }


def costs_table(production: Production, survey: Survey) -> str:
    """The same for people."""
    lines = [f"{item.region}  {item}" for item in survey.items] or ["nothing of the application is up"]
    unknown = sum(None in item.prices.values() for item in survey.items)
    regions = {item.region for item in survey.items} | {production.config.region}
    lines += [f"{region} could not be looked at: {why}" for region, why in survey.unseen.items()]
    lines.append(
        f"account {production.account_id}: {shown(total(survey.items))} by the hour"
        + (f", and {unknown} of unknown price" if unknown else "")
        + f" (prices of {load_prices().read(regions)})"
    )
    return "\n".join(lines)


def callers_policy(config: BackendConfig, *, web: bool = False) -> Any:
    """The IAM policy for whoever runs the commands against the account, region, bucket and role that *config* names.

    *web*: what they need beyond it for the page and for the hour at which an endpoint is deleted; one policy cannot
    hold both.
    """
    production = open_production(
        config, SentimentSettings(home=config.home, bucket=config.bucket), Silent(), asks=False
    )
    names = {
        "partition": partition_of(config.region).name,
        "account": production.account_id,
        "region": config.region,
        "bucket": production.config.bucket,
        "role": production.config.role_arn,
    }
    name = "permissions-web.json" if web else "permissions.json"
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return json.loads(Template(text).substitute(names))


def open_production(
    config: BackendConfig, settings: SentimentSettings, reporter: Reporter, *, asks: bool = True
) -> Production:
    """The account that the credentials lead to, with its own bucket and role where *config* names none.

    Unless *asks*, no request is sent: the account is then the expected one, or a row of zeros.

    Raises:
        InvalidSpec: it is another account than ``expected_account``.
        BackendUnavailable: the account is not reached.
    """
    account = AwsAccount(config)
    account_id = account.id if asks else config.expected_account or UNASKED_ACCOUNT
    chosen: dict[str, Any] = {}
    if "bucket" not in config.model_fields_set:
        chosen["bucket"] = f"greenroom-{account_id}-{config.region}"
        settings = replace(settings, bucket=chosen["bucket"])
    if not config.role_arn:
        chosen["role_arn"] = _role(account_id, config.region, settings).arn
    return Production(
        account=account,
        account_id=account_id,
        config=config.model_copy(update=chosen),
        settings=settings,
        reporter=reporter,
    )


def _role(account_id: str, region: str, settings: SentimentSettings) -> ExecutionRole:
    return ExecutionRole(
        account=account_id,
        region=region,
        stem=PROJECT,
        reads=[settings.prefix],
        writes=[f"{settings.prefix}/{folder}" for folder in ("models", "predictions", "checkpoints")],
        image=settings.image,
        tags=_TAGS,
    )
