"""The client's side: one process that imports its library once and is asked one thing after the other.

    python -m tests.wire.clients.answering MODULE

For each line of its input, a JSON list of a function's name and its arguments, it prints what that function of the
module returned or raised.
"""

import json
import os
import sys
import traceback
from importlib import import_module


def main() -> None:
    """Answer until the input ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # The libraries print what they do.
        module = import_module(f"tests.wire.clients.{sys.argv[1]}")
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                told = {"returned": getattr(module, name)(*arguments)}
            except Exception:  # noqa: BLE001  the test shows it
                told = {"raised": traceback.format_exc()}
            print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
