"""One endpoint, carried from Creating to its deletion: started, watched, restarted, ended."""

import shutil
import time

from backends.engine.logs import masked
from backends.engine.runners import ImageMissing
from backends.engine.serving import GivenUp, NotHealthy, ServingContainer
from backends.engine.site import ENDPOINT, Site
from backends.engine.state import Document, Resource
from backends.engine.training_run import label
from backends.errors import BackendError

_LOOK_SECONDS = 0.1
_PING_EVERY_SECONDS = 1.0
_PINGS_TO_LOSE = 3
_LONGEST_PAUSE_SECONDS = 30.0
_REASON_LIMIT_CHARS = 1024


def run(site: Site, endpoint: Resource) -> None:
    """Carry *endpoint* until it is deleted or has failed to start."""
    _EndpointRun(site, endpoint).carry_out()


class _EndpointRun:
    def __init__(self, site: Site, endpoint: Resource) -> None:
        self._site = site
        self._name = endpoint.name
        self._folder = site.folder(ENDPOINT, endpoint.name)
        self._variants = [
            _VariantRun(
                variant["name"],
                ServingContainer(
                    site=site,
                    label=label(endpoint),
                    folder=self._folder / variant["name"],
                    log_path=self._folder / f"{variant['name']}.log",
                    model=variant["model"],
                ),
                variant["startup_timeout_seconds"] or site.settings.startup_timeout_seconds,
            )
            for variant in endpoint.facts["variants"]
        ]

    def carry_out(self) -> None:
        try:
            self._start()
            self._watch()
        except GivenUp:
            pass
        except (NotHealthy, BackendError, ImageMissing, OSError) as exc:
            self._fail(exc)
            return
        finally:
            for variant in self._variants:
                variant.container.end()
        if self._is_being_deleted():
            self._site.state.remove(ENDPOINT, self._name)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for variant in self._variants:
            shutil.rmtree(variant.container.folder, ignore_errors=True)
            variant.container.prepare()
            variant.container.start()
        for variant in self._variants:
            try:
                variant.container.wait_healthy(variant.startup_timeout_seconds, self._is_being_deleted)
            except NotHealthy as exc:
                raise NotHealthy(
                    f"The primary container for production variant {variant.name} did not pass the ping health check. "
                    f"Please check CloudWatch logs for this endpoint. ({exc})"
                ) from exc
            self._publish(variant)
        self._enter("InService")

    def _watch(self) -> None:
        next_ping = time.monotonic() + _PING_EVERY_SECONDS
        while not self._is_being_deleted():
            for variant in self._variants:
                if variant.has_to_restart(ping=time.monotonic() >= next_ping):
                    self._restart(variant)
            if time.monotonic() >= next_ping:
                next_ping = time.monotonic() + _PING_EVERY_SECONDS
            time.sleep(_LOOK_SECONDS)

    def _restart(self, variant: "_VariantRun") -> None:
        """Bring a lost container back; the endpoint stays InService, as on SageMaker."""
        pause = 0.0
        while True:
            try:
                variant.container.restart()
                variant.container.wait_healthy(variant.startup_timeout_seconds, self._is_being_deleted)
            except (NotHealthy, ImageMissing, OSError):
                pause = min(2 * pause or 1.0, _LONGEST_PAUSE_SECONDS)
                self._pause(pause)
            else:
                variant.lost_pings = 0
                self._publish(variant)
                return

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._is_being_deleted():
                raise GivenUp
            time.sleep(_LOOK_SECONDS)

    def _publish(self, started: "_VariantRun") -> None:
        """Tell callers the container's port."""

        def change(facts: Document) -> None:
            for variant in facts["variants"]:
                if variant["name"] == started.name:
                    variant["port"] = started.container.port

        self._site.state.edit(ENDPOINT, self._name, change)

    def _enter(self, status: str, **more: object) -> None:
        def change(facts: Document) -> bool:
            if facts["status"] == "Deleting":
                return False
            facts |= {"status": status, "modified": time.time(), **more}
            return True

        self._site.state.edit(ENDPOINT, self._name, change)

    def _fail(self, error: Exception) -> None:
        text = str(error) if isinstance(error, NotHealthy) else f"{type(error).__name__}: {error}"
        self._enter("Failed", FailureReason=masked(text)[:_REASON_LIMIT_CHARS])

    def _is_being_deleted(self) -> bool:
        endpoint = self._site.state.find(ENDPOINT, self._name)
        return endpoint is None or endpoint.facts["status"] == "Deleting"


class _VariantRun:
    def __init__(self, name: str, container: ServingContainer, startup_timeout_seconds: float) -> None:
        self.name = name
        self.container = container
        self.startup_timeout_seconds = startup_timeout_seconds
        self.lost_pings = 0

    def has_to_restart(self, *, ping: bool) -> bool:
        if self.container.has_ended():
            return True
        if ping:
            healthy, _ = self.container.ping()
            self.lost_pings = 0 if healthy else self.lost_pings + 1
        return self.lost_pings >= _PINGS_TO_LOSE
