"""One endpoint, carried from Creating to its deletion. Runs in a supervisor process.

The containers of one configuration are a fleet, one for each variant. A variant has a thread of its own that starts
its container, pings it and brings it back when it is lost; the endpoint stays InService meanwhile, as on SageMaker.

    fleet ─ start ─ serves ──────────────────────── drained ─ ended
                      UpdateEndpoint: fleet ─ start ─ shares ─ serves ─ …      (is it lost before: the first serves on)
"""

import math
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
            self._enter("Failed", FailureReason=self._reason(exc))
        if self.is_over():
            forget(self._site, self._endpoint)

    def _reason(self, error: Exception) -> str:
        text = str(error) if isinstance(error, NotHealthy) else self._site.complaint(error)
        return masked(text)[:_REASON_LIMIT_CHARS]

    def is_over(self) -> bool:
        """True once the endpoint is to be deleted."""
        return self._facts() is None

    def check_called_off(self) -> None:
        """Raise NotHealthy with the reason for which somebody wants the update taken back (updates.call_off)."""
        facts = self._facts() or {}
        if reason := facts.get("pending", {}).get("called_off"):
            raise NotHealthy(reason)

    def container(self, variant: Document) -> ServingContainer:
        """A container for *variant*, not yet started."""
        folder = self._folder / _folder_name(variant)
        return ServingContainer(
            site=self._site,
            label=self._endpoint.facts["seat"],
            name=self._endpoint.name,
            instance_type=variant["instance_type"],
            memory_mib=variant.get("serverless", {}).get("MemorySizeInMB", 0),
            folder=folder,
            log_path=folder.with_name(f"{folder.name}.log"),
            model=variant["model"],
        )

    def startup_timeout_seconds(self, variant: Document) -> float:
        """How long the variant's container may take to become healthy."""
        settings = self._site.settings
        usual = (
            settings.serverless_startup_timeout_seconds if "serverless" in variant else settings.startup_timeout_seconds
        )
        return float(variant["startup_timeout_seconds"] or usual)

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
        pending = facts["pending"]
        fleet = _Fleet(self, pending["variants"])
        try:
            fleet.start()
            addresses = fleet.addresses()
            variants = [variant | {"address": addresses[_folder_name(variant)]} for variant in pending["variants"]]
            self._shift(fleet, variants, pending)
            self._settle({"config": pending["config"], "variants": variants})
        except _UNSTARTABLE as exc:
            if self._take_back():
                self._retire(fleet)
            else:
                fleet.end()
            self._settle({"FailureReason": self._reason(exc)})
            return
        except BaseException:
            fleet.end()
            raise
        fleet.watch()
        self._retire(self._fleet, pending["termination_seconds"])
        self._fleet = fleet

    def _shift(self, fleet: "_Fleet", variants: list[Document], pending: Document) -> None:
        """Give *fleet* its shares of the traffic. Raises what :meth:`_Fleet.bake` does."""
        for share in pending["shares"]:
            shift = {"share": share, "variants": variants}

            def give(facts: Document, shift: Document = shift) -> None:
                facts["shift"] = shift
                facts["pending"]["stage"] = "Baking"

            self._site.state.edit(self._endpoint, give)
            fleet.bake(pending["pause_seconds"])

    def _take_back(self) -> bool:
        """Send all traffic to the fleet that serves; whether another one got some."""
        facts = self._facts()
        if facts is None or "shift" not in facts:
            return False
        self._site.state.edit(self._endpoint, lambda facts: facts.pop("shift", None) is not None)
        return True

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
            facts.pop("shift", None)
            facts |= {"status": "InService", "modified": time.time(), **outcome}

        self._site.state.edit(self._endpoint, change)

    def _retire(self, fleet: "_Fleet", spare_seconds: float = 0.0) -> None:
        """End *fleet* once nobody can wait for an answer of it any more, and *spare_seconds* later."""

        def drain() -> None:
            self._over.wait(self._site.settings.invocation_timeout_seconds + _SENDING_SECONDS + spare_seconds)
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
        for variant in self._variants:
            variant.check_alive()  # One may have ended while another started.

    def addresses(self) -> dict[str, Address]:
        """Where the containers listen, by the names of their folders."""
        return {variant.folder_name: variant.container.address for variant in self._variants}

    def bake(self, seconds: float) -> None:
        """Let *seconds* pass.

        Raises NotHealthy as soon as a container is lost or the update is called off, GivenUp if the endpoint is over.
        """
        baking = {self._threads.submit(variant.bake, seconds) for variant in self._variants}
        while baking:
            done, baking = wait(baking, _LOOK_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            self._run.check_called_off()
        if self.is_over():
            raise GivenUp

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
        """Watch the container until the fleet is over; restart it when it is lost."""
        while self._is_lost_by(math.inf):
            self._restart()

    def bake(self, seconds: float) -> None:
        """Watch the container for *seconds*. Raises NotHealthy when it is lost."""
        if self._is_lost_by(time.monotonic() + seconds):
            self.check_alive()
            raise self._unhealthy("it answered, but then lost its pings")

    def _is_lost_by(self, deadline: float) -> bool:
        """Ping the container every second until it is lost; False if the fleet is over, or *deadline* is, before."""
        lost_pings, next_ping = 0, 0.0
        while time.monotonic() < deadline and not self._fleet.is_over():
            if self.container.has_ended_within(_LOOK_SECONDS):
                return True
            if time.monotonic() >= next_ping:
                next_ping = time.monotonic() + _PING_EVERY_SECONDS
                healthy, _ = self.container.ping()
                lost_pings = 0 if healthy else lost_pings + 1
                if lost_pings >= self.container.site.settings.pings_to_lose:
                    return True
        return False

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
