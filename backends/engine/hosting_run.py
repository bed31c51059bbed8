"""One endpoint, carried from Creating to its deletion. Runs in a supervisor process.

The containers of one configuration are a fleet, one for each variant. A variant has a thread of its own that starts
its container, pings it and brings it back when it is lost; the endpoint stays InService meanwhile, as on SageMaker.

    fleet ─ start ─ serves ──────────────────────── drained ─ ended
                      UpdateEndpoint: fleet ─ start ─ serves ─ …      (did it not start: ended, the first serves on)
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from backends.engine.hosting import forget
from backends.engine.logs import masked
from backends.engine.runners import Address, ImageMissing
from backends.engine.serving import GivenUp, NotHealthy, ServingContainer
from backends.engine.site import Site
from backends.engine.state import Document, Resource
from backends.errors import BackendError

_LOOK_SECONDS = 0.1
_PING_EVERY_SECONDS = 1.0
_PINGS_TO_LOSE = 3
_LONGEST_PAUSE_SECONDS = 30.0
_REASON_LIMIT_CHARS = 1024
# A caller that has read an address may take so long to send its request.
_SENDING_SECONDS = 5.0
_UNSTARTABLE = (NotHealthy, BackendError, ImageMissing, OSError)


def run(site: Site, endpoint: Resource) -> None:
    """Carry *endpoint* until it is deleted or has failed to start."""
    _EndpointRun(site, endpoint).carry_out()


class _EndpointRun:
    def __init__(self, site: Site, endpoint: Resource) -> None:
        self._site = site
        self._endpoint = endpoint
        self._over = threading.Event()
        self._folder = site.folder(endpoint)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fleet = _Fleet(self, endpoint.facts["variants"])
        self._retiring: list[threading.Thread] = []

    def carry_out(self) -> None:
        try:
            try:
                self._fleet.start()
                self._enter("InService", "Creating", "SystemUpdating", "RollingBack")
                self._fleet.watch()
                while (facts := self._facts()) is not None:
                    self._fleet.check()
                    if facts["status"] == "Updating":
                        self._update(facts)
                    time.sleep(_LOOK_SECONDS)
            finally:
                self._over.set()
                self._fleet.end()
                for thread in self._retiring:
                    thread.join()
        except GivenUp:
            pass
        except _UNSTARTABLE as exc:
            self._enter("Failed", FailureReason=_reason(exc))
        if self.is_over():
            forget(self._site, self._endpoint)

    def is_over(self) -> bool:
        """True once the endpoint is to be deleted."""
        return self._facts() is None

    def container(self, variant: Document) -> ServingContainer:
        """A container for *variant*, not yet started."""
        folder = self._folder / _folder_name(variant)
        return ServingContainer(
            site=self._site,
            label=self._endpoint.facts["seat"],
            name=self._endpoint.name,
            instance_type=variant["instance_type"],
            folder=folder,
            log_path=folder.with_name(f"{folder.name}.log"),
            model=variant["model"],
        )

    def startup_timeout_seconds(self, variant: Document) -> float:
        """How long the variant's container may take to become healthy."""
        return float(variant["startup_timeout_seconds"] or self._site.settings.startup_timeout_seconds)

    def publish(self, folder_name: str, address: Address | None) -> None:
        """Tell callers where a variant in service listens; None while it does not."""

        def change(facts: Document) -> bool:
            for variant in facts["variants"]:
                if _folder_name(variant) == folder_name:
                    variant["address"] = address
                    return True
            return False  # A fleet that serves not yet, or no longer.

        self._site.state.edit(self._endpoint, change)

    def _update(self, facts: Document) -> None:
        if "pending" not in facts:
            self._share_anew()
            return
        fleet = _Fleet(self, facts["pending"]["variants"])
        try:
            fleet.start()
            fleet.check_alive()
        except _UNSTARTABLE as exc:
            fleet.end()
            self._settle({"FailureReason": _reason(exc)})
        except BaseException:
            fleet.end()
            raise
        else:
            pending = facts["pending"]
            addresses = fleet.addresses()
            variants = [variant | {"address": addresses[_folder_name(variant)]} for variant in pending["variants"]]
            self._settle({"config": pending["config"], "variants": variants})
            fleet.watch()
            self._retire(self._fleet)
            self._fleet = fleet

    def _share_anew(self) -> None:
        def change(facts: Document) -> None:
            for variant in facts["variants"]:
                variant.update(variant.pop("desired", {}))
            facts |= {"status": "InService", "modified": time.time()}

        self._site.state.edit(self._endpoint, change)

    def _settle(self, outcome: Document) -> None:
        """End an update with *outcome*; from this moment on callers see its variants."""

        def change(facts: Document) -> None:
            del facts["pending"]
            facts |= {"status": "InService", "modified": time.time(), **outcome}

        self._site.state.edit(self._endpoint, change)

    def _retire(self, fleet: "_Fleet") -> None:
        """End *fleet* once nobody can wait for an answer of it any more."""

        def drain() -> None:
            self._over.wait(self._site.settings.invocation_timeout_seconds + _SENDING_SECONDS)
            fleet.end()

        fleet.release()
        self._retiring = [thread for thread in self._retiring if thread.is_alive()]
        self._retiring.append(threading.Thread(target=drain))
        self._retiring[-1].start()

    def _enter(self, status: str, *before: str, **more: object) -> None:
        """Enter *status* from one of those *before* it, or from any but Deleting."""

        def change(facts: Document) -> bool:
            if facts["status"] == "Deleting" or (before and facts["status"] not in before):
                return False
            facts |= {"status": status, "modified": time.time(), **more}
            return True

        self._site.state.edit(self._endpoint, change)

    def _facts(self) -> Document | None:
        """What is known of the endpoint; None once it is to be deleted."""
        now = None if self._site.is_gone() else self._site.state.again(self._endpoint)
        return None if now is None or now.facts["status"] == "Deleting" else now.facts


class _Fleet:
    def __init__(self, run: _EndpointRun, variants: Sequence[Document]) -> None:
        self._run = run
        self._over = threading.Event()
        self._variants = [_VariantRun(run, self, variant) for variant in variants]
        self._threads = ThreadPoolExecutor(len(variants))
        self._working: list[Future[None]] = []

    def start(self) -> None:
        """Bring all containers up. Raises NotHealthy in SageMaker's words, GivenUp, or what their parts raise."""
        self._working = [self._threads.submit(variant.start) for variant in self._variants]
        done, _ = wait(self._working, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()

    def check_alive(self) -> None:
        """Raise NotHealthy if a container has ended since it was healthy."""
        for variant in self._variants:
            variant.check_alive()

    def addresses(self) -> dict[str, Address]:
        """Where the containers listen, by the names of their folders."""
        return {variant.folder_name: variant.container.address for variant in self._variants}

    def watch(self) -> None:
        """From now on bring containers back that are lost."""
        self._working = [self._threads.submit(variant.keep_up) for variant in self._variants]

    def check(self) -> None:
        """Raise what has ended a watch before its time."""
        for future in self._working:
            if future.done():
                future.result()

    def is_over(self) -> bool:
        """True once the containers are to end, or nobody cares for them any more."""
        return self._over.is_set() or self._run.is_over()

    def rest(self, seconds: float) -> None:
        """Let *seconds* pass, fewer if the fleet is over."""
        self._over.wait(seconds)

    def release(self) -> None:
        """Watch no longer; the containers go on."""
        self._over.set()

    def end(self) -> None:
        """End all containers and remove their files."""
        self._over.set()
        wait(self._working)
        list(self._threads.map(lambda variant: variant.container.end(), self._variants))
        self._threads.shutdown()


class _VariantRun:
    def __init__(self, run: _EndpointRun, fleet: _Fleet, variant: Document) -> None:
        self.container = run.container(variant)
        self.folder_name = _folder_name(variant)
        self._run = run
        self._fleet = fleet
        self._name = variant["name"]
        self._startup_timeout_seconds = run.startup_timeout_seconds(variant)

    def start(self) -> None:
        """Bring the container up."""
        self.container.prepare()
        self.container.start()
        try:
            self._wait_healthy()
        except NotHealthy as exc:
            raise self._unhealthy(str(exc)) from exc

    def check_alive(self) -> None:
        """Raise NotHealthy if the container has ended."""
        if epitaph := self.container.epitaph():
            raise self._unhealthy(epitaph)

    def keep_up(self) -> None:
        """Ping the container every second until the fleet is over; restart it when it is lost."""
        lost_pings, next_ping = 0, 0.0
        while not self._fleet.is_over():
            if lost_pings >= _PINGS_TO_LOSE or self.container.has_ended_within(_LOOK_SECONDS):
                self._restart()
                lost_pings = 0
            elif time.monotonic() >= next_ping:
                next_ping = time.monotonic() + _PING_EVERY_SECONDS
                healthy, _ = self.container.ping()
                lost_pings = 0 if healthy else lost_pings + 1

    def _restart(self) -> None:
        self._run.publish(self.folder_name, None)
        pause = 1.0
        while not self._fleet.is_over():
            try:
                self.container.restart()
                self._wait_healthy()
            except GivenUp:
                return
            except (NotHealthy, ImageMissing, OSError):
                self._fleet.rest(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return

    def _wait_healthy(self) -> None:
        self.container.wait_healthy(self._startup_timeout_seconds, self._fleet.is_over)
        self._run.publish(self.folder_name, self.container.address)

    def _unhealthy(self, seen: str) -> NotHealthy:
        return NotHealthy(
            f"The primary container for production variant {self._name} did not pass the ping health check. "
            f"Please check CloudWatch logs for this endpoint. ({seen})"
        )


def _folder_name(variant: Document) -> str:
    """Which container of the endpoint's life: an update's has another folder than the one it replaces."""
    return str(variant.get("folder", variant["name"]))


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, NotHealthy) else f"{type(error).__name__}: {error}"
    return masked(text)[:_REASON_LIMIT_CHARS]
