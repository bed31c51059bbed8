#!/usr/bin/env bash
# MiniStack without a container, from PyPI: scripts/ministack.sh [install|start|stop] [FOLDER], as peer.sh says.
NAME=ministack
MODULE=ministack
HEALTH=/_ministack/health
. "$(dirname "$0")/peer.sh"

serve() { # its default is every address
  export BIND_HOST=127.0.0.1 GATEWAY_PORT="$PORT" S3_DATA_DIR="$FOLDER/s3" STATE_DIR="$FOLDER/state"
  exec "$VENV/bin/python" -m "$MODULE"
}

main "$@"
