"""A script as users of the SDK write it: hyperparameters are arguments, the platform's folders variables."""

import argparse
import json
import os
import shutil
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--factor", type=int)
parser.add_argument("--title")
arguments = parser.parse_args()
if arguments.factor == 0:
    raise ValueError("a factor of nothing")
rows = [int(row) for path in Path(os.environ["SM_CHANNEL_TRAIN"]).iterdir() for row in path.read_text().split()]
print(f"sum={sum(rows)};", flush=True)  # noqa: T201  the log is what metrics are read from
model = Path(os.environ["SM_MODEL_DIR"])
(model / "model.json").write_text(json.dumps({"factor": arguments.factor, "title": arguments.title, "sum": sum(rows)}))
(model / "code").mkdir()
shutil.copy(Path(__file__).with_name("inference.py"), model / "code")
