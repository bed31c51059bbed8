"""One training job, carried out from Downloading to its end (contract A.7-A.11). Runs in a supervisor process."""

import re
import shutil
import struct
import tempfile
import time
from pathlib import Path

from backends.engine import archives, channels, layout
from backends.engine.logs import masked
from backends.engine.runners import ImageMissing, Program, Running
from backends.engine.site import TRAINING, Site
from backends.engine.state import Document, Resource
from backends.engine.training import TERMINAL, artifact_uri, output_uri
from backends.errors import BackendError

_REASON_LIMIT_CHARS = 1024
_LOOK_SECONDS = 0.1
# Longer lines are cut before a metric's regex sees them: a user's regex may be slow (case S22).
_METRIC_LINE_LIMIT_CHARS = 4096


class _Stopped(Exception):
    """The job was asked to stop before its program ran."""


def run(site: Site, job: Resource) -> None:
    """Carry *job* to a terminal status. Whatever happens, it ends with a reason."""
    _TrainingRun(site, job).carry_out()


class _TrainingRun:
    def __init__(self, site: Site, job: Resource) -> None:
        self._site = site
        self._request = job.request
        self._name = job.name
        self._folder = site.folder(TRAINING, job.name)
        self._root = self._folder / "ml"
        self._log = self._folder / "algo-1.log"
        self._label = label(job)

    def carry_out(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        try:
            self._download()
            code, cause = self._train()
            self._upload(code, cause)
        except _Stopped:
            self._end("Stopped", "Training job stopped")
        except (channels.UnusableKey, BackendError, ImageMissing) as exc:
            self._fail(f"ClientError: {exc}")
        except Exception as exc:
            self._fail(f"InternalServerError: {type(exc).__name__}: {exc}")
            raise
        finally:
            shutil.rmtree(self._root, ignore_errors=True)
            shutil.rmtree(self._folder / "tmp", ignore_errors=True)

    def _download(self) -> None:
        self._enter("Downloading", "Downloading input data", TrainingStartTime=time.time())
        layout.lay_out_training(self._root, self._request)
        for channel in self._request.get("InputDataConfig", []):
            self._raise_if_stopped()
            folder = self._root / "input" / "data" / channel["ChannelName"]
            channels.download(self._site.store, channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
        self._raise_if_stopped()

    def _train(self) -> tuple[int, str]:
        """Run the program; its exit code, and why it ended: "", "stop" or "runtime"."""
        algorithm = self._request["AlgorithmSpecification"]
        program = Program(
            label=self._label,
            image=algorithm["TrainingImage"],
            root=self._root,
            log_path=self._log,
            argument="train",
            entrypoint=tuple(algorithm.get("ContainerEntrypoint", ())),
            arguments=tuple(algorithm.get("ContainerArguments", ())),
            environment=layout.training_environment(
                self._request, self._site.arn(TRAINING, self._name), self._site.settings.region
            ),
        )
        self._enter("Training", "Training image download completed. Training in progress.")
        running = self._site.runner.start(program)
        try:
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

    def _upload(self, code: int, cause: str) -> None:
        self._record_metrics()
        if code and not cause:
            self._upload_folder("output/data", "output.tar.gz")
            text = layout.failure_text(self._root)
            ending = f", exit code: {code}"
            self._fail(f"AlgorithmError: {text}"[: _REASON_LIMIT_CHARS - len(ending)] + ending)
            return
        self._enter("Uploading", "Uploading generated training model")
        self._upload_folder("model", "model.tar.gz", even_if_empty=True)
        self._upload_folder("output/data", "output.tar.gz")
        if cause == "runtime":
            message = "Training job runtime exceeded MaxRuntimeInSeconds provided"
            self._end("Stopped", message, phase="MaxRuntimeExceeded")
        elif cause == "stop":
            self._end("Stopped", "Training job stopped")
        else:
            self._end("Completed", "Training job completed")

    def _upload_folder(self, folder: str, file_name: str, *, even_if_empty: bool = False) -> None:
        source = self._root / folder
        if not even_if_empty and not any(source.iterdir()):
            return
        uri = artifact_uri(self._request) if file_name == "model.tar.gz" else output_uri(self._request, file_name)
        with tempfile.TemporaryFile(dir=self._folder) as draft:
            archives.create(source, draft)
            draft.seek(0)
            self._site.store.write(uri, draft, content_type="application/x-tar")

    def _record_metrics(self) -> None:
        found = final_metrics(self._log, self._request["AlgorithmSpecification"].get("MetricDefinitions", []))
        if found:
            self._site.state.update(TRAINING, self._name, FinalMetricDataList=found)

    def _raise_if_stopped(self) -> None:
        if self._stop_requested():
            raise _Stopped

    def _stop_requested(self) -> bool:
        job = self._site.state.find(TRAINING, self._name)
        return job is not None and bool(job.facts.get("stop_requested"))

    def _enter(self, phase: str, message: str, *, status: str | None = None, **facts: object) -> None:
        """Begin a secondary status; the one before it ends at the same moment."""
        now = time.time()

        def change(known: Document) -> bool:
            if known["status"] in TERMINAL:
                return False  # Somebody took this run for dead; what they wrote stands.
            transitions = known["transitions"]
            transitions[-1].setdefault("EndTime", now)
            transitions.append({"Status": phase, "StartTime": now, "StatusMessage": message})
            known.update(facts)
            if status in TERMINAL:
                transitions[-1]["EndTime"] = now
            if status:
                known["status"] = status
            return True

        self._site.state.edit(TRAINING, self._name, change)

    def _end(self, status: str, message: str, *, phase: str = "") -> None:
        self._enter(phase or status, message, status=status, TrainingEndTime=time.time())

    def _fail(self, reason: str) -> None:
        reason = masked(reason)[:_REASON_LIMIT_CHARS]
        self._enter("Failed", reason, status="Failed", FailureReason=reason, TrainingEndTime=time.time())


def label(resource: Resource) -> str:
    """What marks everything that runs for *resource*: unique even if its name is used again."""
    return f"{resource.kind}/{resource.name}/{resource.created:.6f}"


def final_metrics(log_path: Path, definitions: list[Document]) -> list[Document]:
    """The last value that each metric's regex finds in the log, as FinalMetricDataList holds it.

    The first capture group is read as a number and kept as float32; groups that are no number are ignored
    (contract A.12).
    """
    patterns = {definition["Name"]: re.compile(definition["Regex"]) for definition in definitions}
    if not patterns or not log_path.exists():
        return []
    last: dict[str, float] = {}
    with log_path.open(encoding="utf-8", errors="replace") as log:
        for line in log:
            for name, pattern in patterns.items():
                value = _number(pattern.search(line[:_METRIC_LINE_LIMIT_CHARS]))
                if value is not None:
                    last[name] = value
    moment = log_path.stat().st_mtime
    return [
        {"MetricName": name, "Value": struct.unpack("f", struct.pack("f", value))[0], "Timestamp": moment}
        for name, value in last.items()
    ]


def _number(match: re.Match[str] | None) -> float | None:
    try:
        return float(match.group(1)) if match else None
    except (ValueError, IndexError, TypeError):
        return None
