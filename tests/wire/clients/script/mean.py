"""A user's script: its model is the mean of a column, times a hyperparameter."""

import argparse
import json
import os
from pathlib import Path


def model_fn(model_dir: str) -> float:
    """What was trained."""
    mean: float = json.loads((Path(model_dir) / "mean.json").read_text())
    return mean


def transform_fn(model: float, body: bytes, content_type: str, accept: str) -> tuple[str, str]:
    """How far each number is from the mean."""
    assert (content_type, accept) == ("text/csv", "application/json")
    return json.dumps([float(text) - model for text in body.decode().replace("\n", ",").split(",") if text]), accept


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--factor", type=float)
    factor = parser.parse_args().factor
    channel = Path(os.environ["SM_CHANNEL_TRAIN"])
    numbers = [float(line) for path in sorted(channel.rglob("*.csv")) for line in path.read_text().split()]
    mean = factor * sum(numbers) / len(numbers)
    print(f"mean={mean};")
    (Path(os.environ["SM_MODEL_DIR"]) / "mean.json").write_text(json.dumps(mean))


if __name__ == "__main__":
    main()
