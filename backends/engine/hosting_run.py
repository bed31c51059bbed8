"""One endpoint, carried from Creating to its deletion. Runs in a supervisor process.

Each variant has a thread of its own that starts its container, pings it and brings it back when it is lost; the
endpoint stays InService meanwhile, as on SageMaker.
"""

import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from backends.engine.hosting import forget
from backends.engine.logs import masked
from backends.engine.runners import Address, ImageMissing
from backends.engine.serving import GivenUp, NotHealthy, ServingContainer
from backends.engine.site import Site
from backends.engine.state import Document, Resource
from backends.errors import BackendError

_LOOK_SECONDS = 0.1
_PING_EVERY_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_REASON_LIMIT_CHARS = 1024


def run(site: Site, endpoint: Resource) -> None:
    """Carry *endpoint* until it is deleted or has failed to start."""
    _EndpointRun(site, endpoint).carry_out()


class _EndpointRun:
    def __init__(self, site: Site, endpoint: Resource) -> None:
        self._site = site
        self._endpoint = endpoint
        self._over = threading.Event()
        folder = site.folder(endpoint)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._variants = [
            _VariantRun(
                self,
                variant["name"],
                ServingContainer(
                    site=site,
                    label=endpoint.facts["seat"],
                    name=endpoint.name,
                    instance_type=variant["instance_type"],
                    folder=folder / variant["name"],
                    log_path=folder / f"{variant['name']}.log",
                    model=variant["model"],
                ),
                variant["startup_timeout_seconds"] or site.settings.startup_timeout_seconds,
            )
            for variant in endpoint.facts["variants"]
        ]

    def carry_out(self) -> None:
        try:
            with ThreadPoolExecutor(len(self._variants)) as threads:
                try:
                    self._start(threads)
                    self._watch(threads)
                finally:
                    self._over.set()
                    list(threads.map(lambda variant: variant.container.end(), self._variants))
        except GivenUp:
            pass
        except NotHealthy as exc:
            self._fail(str(exc))
        except (BackendError, ImageMissing, OSError) as exc:
            self._fail(f"{type(exc).__name__}: {exc}")
        if self._is_deleted():
            forget(self._site, self._endpoint)

    def is_over(self) -> bool:
        """True once the containers are to end."""
        return self._over.is_set() or self._is_deleted()

    def rest(self, seconds: float) -> None:
        """Let *seconds* pass, fewer if the endpoint is over."""
        self._over.wait(seconds)

    def publish(self, name: str, address: Address | None) -> None:
        """Tell callers where the variant listens; None while it does not."""

        def change(facts: Document) -> None:
            for variant in facts["variants"]:
                if variant["name"] == name:
                    variant["address"] = address

        self._site.state.edit(self._endpoint, change)

    def _start(self, threads: ThreadPoolExecutor) -> None:
        starting = [threads.submit(variant.start) for variant in self._variants]
        done, _ = wait(starting, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        self._enter("InService")

    def _watch(self, threads: ThreadPoolExecutor) -> None:
        watching = [threads.submit(variant.keep_up) for variant in self._variants]
        while not self.is_over() and not any(future.done() for future in watching):
            time.sleep(_LOOK_SECONDS)
        self._over.set()
        for future in watching:
            future.result()

    def _enter(self, status: str, **more: object) -> None:
        def change(facts: Document) -> bool:
            if facts["status"] == "Deleting":
                return False
            facts |= {"status": status, "modified": time.time(), **more}
            return True

        self._site.state.edit(self._endpoint, change)

    def _fail(self, reason: str) -> None:
        self._enter("Failed", FailureReason=masked(reason)[:_REASON_LIMIT_CHARS])

    def _is_deleted(self) -> bool:
        if self._site.is_gone():
            return True
        now = self._site.state.again(self._endpoint)
        return now is None or now.facts["status"] == "Deleting"


class _VariantRun:
    def __init__(
        self, endpoint: _EndpointRun, name: str, container: ServingContainer, startup_timeout_seconds: float
    ) -> None:
        self.container = container
        self._endpoint = endpoint
        self._name = name
        self._startup_timeout_seconds = startup_timeout_seconds

    def start(self) -> None:
        """Bring the container up. Raises NotHealthy in SageMaker's words, GivenUp, or what its parts raise."""
        self.container.prepare()
        self.container.start()
        try:
            self._wait_healthy()
        except NotHealthy as exc:
            raise NotHealthy(
                f"The primary container for production variant {self._name} did not pass the ping health check. "
                f"Please check CloudWatch logs for this endpoint. ({exc})"
            ) from exc

    def keep_up(self) -> None:
        """Ping the container every second until the endpoint is over; restart it when it is lost."""
        lost_pings, next_ping = 0, 0.0
        while not self._endpoint.is_over():
            if lost_pings >= self.container.site.settings.pings_to_lose or self.container.has_ended_within(
                _LOOK_SECONDS
            ):
                self._restart()
                lost_pings = 0
            elif time.monotonic() >= next_ping:
                next_ping = time.monotonic() + _PING_EVERY_SECONDS
                healthy, _ = self.container.ping()
                lost_pings = 0 if healthy else lost_pings + 1

    def _restart(self) -> None:
        self._endpoint.publish(self._name, None)
        pause = 1.0
        while not self._endpoint.is_over():
            try:
                self.container.restart()
                self._wait_healthy()
            except GivenUp:
                return
            except (NotHealthy, ImageMissing, OSError):
                self._endpoint.rest(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return

    def _wait_healthy(self) -> None:
        self.container.wait_healthy(self._startup_timeout_seconds, self._endpoint.is_over)
        self._endpoint.publish(self._name, self.container.address)
