"""What a training job costs over running its program by hand, for a program that does nothing."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from backends.specs import TrainingSpec

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure
from benchmarks.places import BUCKET, backend_with

PAIRS = 20
WARM_UPS = 2


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = measure()
    return [
        Figure(
            what="training job whose program does nothing",
            ours=f"{measured['training_job_ms']:.0f} ms",
            peer=f"the program by hand {measured['program_by_hand_ms']:.0f} ms",
            ratio=f"{measured['overhead_ms']:.0f} ms over it",
            target="≤ 150 ms over it",
        )
    ]


def measure() -> dict[str, float]:
    """Medians over pairs of runs, in milliseconds."""
    by_hand, as_job = [], []
    with backend_with(train="pass\n") as (backend, image):

        def run_job(name: str) -> None:
            backend.training.start(TrainingSpec(name=name, image="image", output_uri=f"s3://{BUCKET}/out"))
            backend.training.finish(name)

        for number in range(PAIRS + WARM_UPS):
            by_hand.append(_milliseconds(lambda: subprocess.run([str(image / "train")], check=True)))
            as_job.append(_milliseconds(lambda name=f"job-{number}": run_job(name)))  # type: ignore[misc]
    by_hand, as_job = by_hand[WARM_UPS:], as_job[WARM_UPS:]
    return {
        "program_by_hand_ms": statistics.median(by_hand),
        "training_job_ms": statistics.median(as_job),
        "overhead_ms": statistics.median(job - hand for job, hand in zip(as_job, by_hand, strict=True)),
        "overhead_best_ms": min(as_job) - min(by_hand),
    }


def _milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:24} {value:8.1f}")
