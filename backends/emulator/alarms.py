"""The alarms of an update, which the server behind this one keeps in CloudWatch's place."""

import logging
import threading
from typing import Any

from backends.engine import Engine
from backends.sagemaker.readings import ServiceError

_LOOK_SECONDS = 0.5
_KINDS = ("MetricAlarms", "CompositeAlarms")

_log = logging.getLogger("greenroom.emulator")


class AlarmWatch:
    """Looks at the alarms that an update names while it bakes, and has it taken back once one of them has gone off.

    It follows the updates that this server was asked for, until it is closed. *url* is the other server's.
    """

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._url = url
        self._over = threading.Event()

    def follow(self, endpoint: str) -> None:
        """Watch over the update of *endpoint* that has just begun, in a thread of its own."""
        if self._alarms(endpoint):
            threading.Thread(target=self._watch, args=[endpoint], name=f"alarms of {endpoint}", daemon=True).start()

    def close(self) -> None:
        """Follow nothing any more."""
        self._over.set()

    def _watch(self, endpoint: str) -> None:
        import boto3  # noqa: PLC0415  slow to load
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        cloudwatch: Any = boto3.client(
            "cloudwatch",
            endpoint_url=self._url,
            region_name=self._engine.site.settings.region,
            aws_access_key_id="greenroom",
            aws_secret_access_key="greenroom",  # noqa: S106  nobody's
        )
        try:
            while (names := self._alarms(endpoint)) and not self._over.wait(_LOOK_SECONDS):
                found = cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["MetricAlarm", "CompositeAlarm"])
                alarms = [alarm for kind in _KINDS for alarm in found.get(kind, ())]
                gone_off = [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM"]
                if gone_off and self._engine.call_off(
                    endpoint, f"Alarms in ALARM while it baked: {', '.join(gone_off)}"
                ):
                    return
        except (BotoCoreError, ClientError) as exc:
            _log.warning("the alarms of endpoint %s are not watched: %s", endpoint, exc)
        finally:
            cloudwatch.close()

    def _alarms(self, endpoint: str) -> list[str]:
        """Those of the update under way; none once it is over."""
        try:
            described = self._engine.call("DescribeEndpoint", {"EndpointName": endpoint})
        except ServiceError:
            return []  # It is deleted.
        deployment = described.get("LastDeploymentConfig", {}) if described["EndpointStatus"] == "Updating" else {}
        return [alarm["AlarmName"] for alarm in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", ())]
