#!/usr/bin/env bash
# The SageMaker Python SDKs whose local mode benchmarks/containers.py measures, each in a venv of its own below build/,
# and the docker-compose that they call, from Debian where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v docker-compose >/dev/null && ! docker compose version >/dev/null 2>&1; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker-compose >/dev/null
fi
for requirement in "sagemaker[local]==2.257.7" "sagemaker==3.27.0"; do
  venv="build/sdk-local-mode/${requirement##*==}"
  [ ! -f "$venv/installed" ] || continue
  echo "installing $requirement …" >&2
  if command -v uv >/dev/null; then
    uv venv -q --clear --python "${PYTHON:-python3}" "$venv"
    uv pip install -q --compile-bytecode --python "$venv/bin/python" "$requirement"
  else
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install -q "$requirement"
  fi
  touch "$venv/installed"
done
