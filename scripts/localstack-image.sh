#!/usr/bin/env bash
# A stand-in for LocalStack's image where no container registry can be reached: the release that scripts/localstack.sh
# installs, upon the image of scripts/base-image.sh. Does nothing where an image of that name is.
#
#   scripts/localstack-image.sh [NAME]
set -euo pipefail

NAME="${1:-greenroom-localstack:4.9.2}"
SCRIPTS="$(cd "$(dirname "$0")" && pwd)"
VENV="${XDG_STATE_HOME:-$HOME/.local/state}/greenroom/localstack-venv"

docker image inspect "$NAME" >/dev/null 2>&1 && exit 0
"$SCRIPTS/base-image.sh"
"$SCRIPTS/localstack.sh" install
echo "making $NAME …" >&2
docker build -q -t "$NAME" -f - "$VENV" >/dev/null <<DOCKERFILE
FROM python:3.11-slim-bookworm
COPY lib/python3.11/site-packages /opt/localstack
COPY root/usr/lib/localstack /usr/lib/localstack
ENV PYTHONPATH=/opt/localstack
CMD ["python3", "-m", "localstack.runtime.main"]
DOCKERFILE
