"""One training job, carried out from Downloading to its end (contract A.7-A.11). Runs in a supervisor process."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backends.engine import channels, layout, script_mode
from backends.engine.checkpoints import Checkpoints
from backends.engine.logs import masked
from backends.engine.runners import ImageMissing, Program, RunnerFailed, Running, end_all
from backends.engine.site import ENDED, TRAINING, Site
from backends.engine.state import Document, Resource
from backends.errors import BackendError
from backends.naming import join_uri
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


class _Ended(NamedTuple):
    """How the programs ended: an exit code, whose it was, and why they were ended: "", "stop" or "runtime"."""

    code: int
    host: int = 0
    cause: str = ""


_COMPLETED = _Ending("Completed", "Training job completed")
_STOPPED = _Ending("Stopped", "Training job stopped")
_OVERLONG = _Ending("Stopped", "Training job runtime exceeded MaxRuntimeInSeconds provided", "MaxRuntimeExceeded")


def run(site: Site, job: Resource) -> None:
    """Carry *job* to a terminal status. Whatever happens, it ends with a reason."""
    _TrainingRun(site, job).carry_out()


class _Host:
    """One of the job's hosts: what its program sees as /opt/ml, and where its output goes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.root = self.folder / "ml"
        self.log_path = folder / f"{name}.log"


class _TrainingRun:
    def __init__(self, site: Site, job: Resource) -> None:
        self._site = site
        self._job = job
        self._request = job.request
        self._folder = site.folder(job)
        names = layout.host_names(self._request["ResourceConfig"].get("InstanceCount", 1))
        self._hosts = [_Host(name, self._folder) for name in names]
        self._checkpoints = Checkpoints(
            site.store,
            self._request,
            [host.folder for host in self._hosts],
            pause_seconds=site.settings.checkpoint_pause_seconds,
        )

    def carry_out(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            ending = self._outcome()
        finally:
            # Before the last entry: if the program has filled the disk, that entry needs the space.
            for host in self._hosts:
                layout.remove(host.folder)
        self._end(ending)

    def _outcome(self) -> _Ending:
        try:
            self._download()
            return self._train()
        except _Stopped:
            return _STOPPED
        except RunnerFailed as exc:
            return _failed(f"InternalServerError: {exc}")
        except (BackendError, ImageMissing) as exc:
            return _failed(f"ClientError: {exc}")
        except Exception as exc:  # noqa: BLE001  whatever it is, the job must end and say why
            import traceback  # noqa: PLC0415  for bugs only

            with suppress(OSError):  # Its log may lie on a full disk.
                traceback.print_exc()
            return _failed(f"InternalServerError: {self._site.complaint(exc)}")

    def _download(self) -> None:
        for host in self._hosts:
            host.folder.mkdir(mode=0o700)
            layout.lay_out_training(host.root, self._request, host=host.name, hosts=[host.name for host in self._hosts])
        self._checkpoints.fetch()
        inputs = self._request.get("InputDataConfig", [])
        if inputs:
            self._enter("Downloading", "Downloading input data")
        for channel in inputs:
            source = channel["DataSource"]["S3DataSource"]
            is_sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
            for number, host in enumerate(self._hosts):
                self._raise_if_stopped()
                folder = host.root / "input" / "data" / channel["ChannelName"]
                share = (number, len(self._hosts)) if is_sharded else (0, 1)
                channels.download(
                    self._site.store,
                    source["S3Uri"],
                    folder,
                    share=share,
                    is_manifest=source["S3DataType"] == "ManifestFile",
                )
                if layout.input_mode(self._request, channel) == "FastFile":
                    layout.make_read_only(folder)
        for host in self._hosts:
            script_mode.place_code(self._site.store, self._request, host.root)
        self._raise_if_stopped()

    def _train(self) -> _Ending:
        """Run the programs to their end, then see what they have left."""
        running: list[Running] = []
        try:
            network = self._open_network()
            self._enter("Training", "Training image download completed. Training in progress.")
            running.extend(self._start(host, network) for host in self._hosts)
            # What comes after the program is loaded while it runs: loading is most of a short job's overhead.
            from backends.engine import archives, metrics  # noqa: F401, PLC0415

            with self._checkpoints.followed(running):
                ended = self._watch(running)
            is_failure = bool(ended.code and not ended.cause)
            diagnosis = running[ended.host].diagnosis() if is_failure else ""
            for program in running:
                program.collect()
        except BaseException:
            _remove(running)
            raise
        removal = threading.Thread(target=_remove, args=(running,))  # Meanwhile what it left is stored.
        removal.start()
        try:
            self._checkpoints.store()
            if is_failure:
                return self._blame(self._hosts[ended.host], ended.code, diagnosis)
            return self._upload(ended.cause)
        finally:
            removal.join()

    def _open_network(self) -> str:
        if len(self._hosts) == 1:
            return ""
        is_isolated = self._request.get("EnableNetworkIsolation", False)
        return self._site.runner.open_network(self._job.facts["seat"], self._job.name, is_isolated=is_isolated)

    def _start(self, host: _Host, network: str) -> Running:
        algorithm = self._request["AlgorithmSpecification"]
        program = Program(
            label=self._job.facts["seat"],
            name=self._job.name,
            image=algorithm["TrainingImage"],
            root=host.root,
            log_path=host.log_path,
            argument="train",
            entrypoint=tuple(algorithm.get("ContainerEntrypoint", ())),
            arguments=tuple(algorithm.get("ContainerArguments", ())),
            environment=layout.training_environment(
                self._request, self._site.arn(TRAINING, self._job.name), self._site.settings.region
            ),
            instance_type=self._request["ResourceConfig"].get("InstanceType", ""),
            is_isolated=self._request.get("EnableNetworkIsolation", False),
            network=network,
            host=host.name,
            outputs=("model", "output", *layout.checkpoint_folders(self._request)),
        )
        try:
            return self._site.runner.start(program)
        except RunnerFailed:
            raise
        except OSError as exc:
            raise ImageMissing(f"the program of image {program.image!r} cannot be started: {exc}") from exc

    def _watch(self, running: list[Running]) -> _Ended:
        """Wait until all have ended well, one has failed, or somebody or the clock ends them."""
        limit = self._request["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400)
        deadline = time.monotonic() + limit
        grace_seconds = self._site.settings.training_grace_seconds
        while True:
            codes = [program.wait(_LOOK_SECONDS / len(running)) for program in running]
            failed = next((host for host, code in enumerate(codes) if code), None)
            if failed is not None:
                end_all(running, grace_seconds)
                return _Ended(codes[failed] or 0, failed)
            if None not in codes:
                return _Ended(0)
            if self._stop_requested():
                self._enter("Stopping", "Stopping the training job", status="Stopping")
                end_all(running, grace_seconds)
                return _Ended(0, cause="stop")
            if time.monotonic() >= deadline:
                self._enter("Stopping", "Training job runtime exceeded its limit", status="Stopping")
                end_all(running, grace_seconds)
                return _Ended(0, cause="runtime")

    def _blame(self, host: _Host, code: int, diagnosis: str) -> _Ending:
        self._record_metrics()
        self._upload_archive("output/data", layout.output_uri(self._request, "output.tar.gz"))
        ending = f", exit code: {code}" + (f" ({diagnosis})" if diagnosis else "")
        text = masked(layout.failure_text(host.root))[: _REASON_LIMIT_CHARS - len("AlgorithmError: " + ending)]
        return _failed(f"AlgorithmError: {text}{ending}")

    def _upload(self, cause: str) -> _Ending:
        self._record_metrics()
        self._enter("Uploading", "Uploading generated training model")
        if layout.is_compressed(self._request):
            self._upload_archive("model", layout.artifact_uri(self._request), even_if_empty=True)
        else:
            self._upload_files("model", layout.artifact_uri(self._request))
        self._upload_archive("output/data", layout.output_uri(self._request, "output.tar.gz"))
        if cause == "runtime":
            return _OVERLONG
        return _STOPPED if cause == "stop" or self._stop_requested() else _COMPLETED

    def _upload_archive(self, folder: str, uri: str, *, even_if_empty: bool = False) -> None:
        from backends.engine import archives  # noqa: PLC0415  see _train

        source = self._merged(folder)
        if even_if_empty or any(source.iterdir()):
            with stream_of(archives.pack(source)) as archive:
                self._site.store.write(uri, archive, content_type="application/x-tar")

    def _upload_files(self, folder: str, uri: str) -> None:
        """Store the files of the folder of all hosts below *uri*."""
        from backends.engine import archives  # noqa: PLC0415  see _train

        for name, path in archives.files(self._merged(folder)):
            self._site.store.upload(path, join_uri(uri, name))

    def _merged(self, folder: str) -> Path:
        """The folder of all hosts as one; of files of one name the first host's is taken."""
        merged = self._hosts[0].root / folder
        merged.mkdir(parents=True, exist_ok=True)  # The program may have removed it.
        for host in self._hosts[1:]:
            if (host.root / folder).is_dir():
                layout.merge(host.root / folder, merged)
        return merged

    def _record_metrics(self) -> None:
        definitions = self._request["AlgorithmSpecification"].get("MetricDefinitions", [])
        log_path = self._hosts[0].log_path
        if not definitions or not log_path.exists():
            return
        from backends.engine import metrics  # noqa: PLC0415  see _train

        found, given_up = metrics.final_metrics(
            log_path, definitions, timeout_seconds=self._site.settings.metric_timeout_seconds
        )
        if found:
            self._site.state.update(self._job, FinalMetricDataList=found)
        with log_path.open("a", encoding="utf-8") as log:
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


def _remove(running: list[Running]) -> None:
    for program in running:
        program.remove()


def _failed(reason: str) -> _Ending:
    return _Ending("Failed", masked(reason)[:_REASON_LIMIT_CHARS])
