"""One training job, carried out from Downloading to its end (contract A.7-A.11). Runs in a supervisor process."""

import time
from typing import NamedTuple

from backends.engine import channels, layout
from backends.engine.logs import masked
from backends.engine.runners import ImageMissing, Program, Running
from backends.engine.site import ENDED, TRAINING, Site
from backends.engine.state import Document, Resource
from backends.engine.training import output_uri
from backends.errors import BackendError
from backends.stores import stream_of

_REASON_LIMIT_CHARS = 1024
_LOOK_SECONDS = 0.1


class _Stopped(Exception):
    """The job was asked to stop before its program ran."""


class _Ending(NamedTuple):
    """How a job ends: its status, the last entry's message (FailureReason of a failed one) and phase if it differs."""

    status: str
    message: str
    phase: str = ""


_COMPLETED = _Ending("Completed", "Training job completed")
_STOPPED = _Ending("Stopped", "Training job stopped")
_OVERLONG = _Ending("Stopped", "Training job runtime exceeded MaxRuntimeInSeconds provided", "MaxRuntimeExceeded")


def run(site: Site, job: Resource) -> None:
    """Carry *job* to a terminal status. Whatever happens, it ends with a reason."""
    _TrainingRun(site, job).carry_out()


class _TrainingRun:
    def __init__(self, site: Site, job: Resource) -> None:
        self._site = site
        self._job = job
        self._request = job.request
        self._folder = site.folder(job)
        self._root = self._folder / "ml"
        self._log = self._folder / "algo-1.log"

    def carry_out(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            ending = self._outcome()
        finally:
            # Before the last entry: if the program has filled the disk, that entry needs the space.
            for scratch in (self._root, self._folder / "tmp"):
                layout.remove(scratch)
        self._end(ending)

    def _outcome(self) -> _Ending:
        try:
            self._download()
            code, cause = self._train()
            return self._upload(code, cause)
        except _Stopped:
            return _STOPPED
        except (channels.UnusableKey, BackendError, ImageMissing) as exc:
            return _failed(f"ClientError: {exc}")
        except Exception as exc:  # noqa: BLE001  whatever it is, the job must end and say why
            import traceback  # noqa: PLC0415  for bugs only

            traceback.print_exc()
            return _failed(f"InternalServerError: {type(exc).__name__}: {exc}")

    def _download(self) -> None:
        layout.lay_out_training(self._root, self._request)
        inputs = self._request.get("InputDataConfig", [])
        if inputs:
            self._enter("Downloading", "Downloading input data")
        for channel in inputs:
            self._raise_if_stopped()
            folder = self._root / "input" / "data" / channel["ChannelName"]
            channels.download(self._site.store, channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
        self._raise_if_stopped()

    def _train(self) -> tuple[int, str]:
        """Run the program; its exit code, and why it ended: "", "stop" or "runtime"."""
        algorithm = self._request["AlgorithmSpecification"]
        program = Program(
            label=self._job.facts["seat"],
            image=algorithm["TrainingImage"],
            root=self._root,
            log_path=self._log,
            argument="train",
            entrypoint=tuple(algorithm.get("ContainerEntrypoint", ())),
            arguments=tuple(algorithm.get("ContainerArguments", ())),
            environment=layout.training_environment(
                self._request, self._site.arn(TRAINING, self._job.name), self._site.settings.region
            ),
        )
        self._enter("Training", "Training image download completed. Training in progress.")
        try:
            running = self._site.runner.start(program)
        except OSError as exc:
            raise ImageMissing(f"the program of image {program.image!r} cannot be started: {exc}") from exc
        try:
            # What comes after the program is loaded while it runs: loading is most of a short job's overhead.
            from backends.engine import archives, metrics  # noqa: F401, PLC0415

            return self._watch(running)
        finally:
            running.kill()

    def _watch(self, running: Running) -> tuple[int, str]:
        limit = self._request["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400)
        deadline = time.monotonic() + limit
        while (code := running.wait(_LOOK_SECONDS)) is None:
            if self._stop_requested():
                self._enter("Stopping", "Stopping the training job", status="Stopping")
                return running.end(self._site.settings.training_grace_seconds), "stop"
            if time.monotonic() >= deadline:
                self._enter("Stopping", "Training job runtime exceeded its limit", status="Stopping")
                return running.end(self._site.settings.training_grace_seconds), "runtime"
        return code, ""

    def _upload(self, code: int, cause: str) -> _Ending:
        self._record_metrics()
        if code and not cause:
            self._upload_folder("output/data", "output.tar.gz")
            ending = f", exit code: {code}"
            text = masked(layout.failure_text(self._root))[: _REASON_LIMIT_CHARS - len("AlgorithmError: " + ending)]
            return _failed(f"AlgorithmError: {text}{ending}")
        self._enter("Uploading", "Uploading generated training model")
        self._upload_folder("model", "model.tar.gz", even_if_empty=True)
        self._upload_folder("output/data", "output.tar.gz")
        if cause == "runtime":
            return _OVERLONG
        return _STOPPED if cause == "stop" or self._stop_requested() else _COMPLETED

    def _upload_folder(self, folder: str, file_name: str, *, even_if_empty: bool = False) -> None:
        source = self._root / folder
        if not source.is_dir():
            source.mkdir(parents=True)  # The program has removed it.
        if even_if_empty or any(source.iterdir()):
            uri = output_uri(self._request, file_name)
            from backends.engine import archives  # noqa: PLC0415  see _train

            with stream_of(archives.pack(source)) as archive:
                self._site.store.write(uri, archive, content_type="application/x-tar")

    def _record_metrics(self) -> None:
        definitions = self._request["AlgorithmSpecification"].get("MetricDefinitions", [])
        if not definitions or not self._log.exists():
            return
        from backends.engine import metrics  # noqa: PLC0415  see _train

        found, given_up = metrics.final_metrics(
            self._log, definitions, timeout_seconds=self._site.settings.metric_timeout_seconds
        )
        if found:
            self._site.state.update(self._job, FinalMetricDataList=found)
        with self._log.open("a", encoding="utf-8") as log:
            log.writelines(f"[greenroom] metric {name!r} was given up: its regex took too long.\n" for name in given_up)

    def _raise_if_stopped(self) -> None:
        if self._stop_requested():
            raise _Stopped

    def _stop_requested(self) -> bool:
        job = self._site.state.again(self._job)
        return job is not None and job.facts["status"] == "Stopping"

    def _enter(self, phase: str, message: str, *, status: str | None = None) -> None:
        """Begin a secondary status; the one before it ends at the same moment."""

        def change(known: Document) -> bool:
            if known["status"] in ENDED:
                return False  # Somebody took this run for dead; what they wrote stands.
            transitions = known["transitions"]
            now = max(time.time(), transitions[-1]["StartTime"])  # The clock may have been set back.
            transitions[-1].setdefault("EndTime", now)
            transitions.append({"Status": phase, "StartTime": now, "StatusMessage": message})
            if phase in {"Downloading", "Training"}:
                known.setdefault("TrainingStartTime", now)
            if status in ENDED:
                transitions[-1]["EndTime"] = known["TrainingEndTime"] = now
            if status == "Failed":
                known["FailureReason"] = message
            if status:
                known["status"] = status
            return True

        self._site.state.edit(self._job, change)

    def _end(self, ending: _Ending) -> None:
        self._enter(ending.phase or ending.status, ending.message, status=ending.status)


def _failed(reason: str) -> _Ending:
    return _Ending("Failed", masked(reason)[:_REASON_LIMIT_CHARS])
