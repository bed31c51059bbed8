# Sourced: programs from PyPI in a venv of their own, of what a lock file beside the scripts says. Who sources it says NAME.
#
#   install          make the venv, if there is none of what the lock file says
#   is_installed     say by the exit code whether there is
set -euo pipefail

STATE="${XDG_STATE_HOME:-$HOME/.local/state}/greenroom"
VENV="$STATE/$NAME-venv"
SCRIPTS="$(cd "$(dirname "$0")" && pwd)"
LOCK="$SCRIPTS/$NAME.lock"

is_installed() {
  cmp -s "$LOCK" "$VENV/installed.lock"
}

install() {
  is_installed && return
  echo "installing $NAME …" >&2
  if command -v uv >/dev/null; then
    uv venv -q --clear --python "${PYTHON:-python3}" "$VENV"
    uv pip sync -q --compile-bytecode --require-hashes --python "$VENV/bin/python" "$LOCK"
  else
    "${PYTHON:-python3}" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install -q --require-hashes -r "$LOCK"
  fi
  prepare
  cp "$LOCK" "$VENV/installed.lock"
}

prepare() { # what the new venv needs besides
  :
}
