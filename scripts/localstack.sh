#!/usr/bin/env bash
# LocalStack without a container, from PyPI: scripts/localstack.sh [install|start|stop] [FOLDER], as peer.sh says.
NAME=localstack
MODULE=localstack.runtime.main
HEALTH=/_localstack/health
. "$(dirname "$0")/peer.sh"

prepare() { # the catalogue of AWS's operations, else worked out anew at every start
  mkdir -p "$VENV/root/usr/lib/localstack"
  OVERRIDE_IN_DOCKER=0 FILESYSTEM_ROOT="$VENV/root" "$VENV/bin/python" -m localstack.aws.spec
}

serve() {
  mkdir -p usr/lib
  ln -sfn "$VENV/root/usr/lib/localstack" usr/lib/localstack
  # LocalStack's default server listens on every address, whatever GATEWAY_LISTEN says; hypercorn obeys it.
  export GATEWAY_LISTEN="127.0.0.1:$PORT" GATEWAY_SERVER=hypercorn DNS_ADDRESS=0
  export OVERRIDE_IN_DOCKER=0 FILESYSTEM_ROOT="$FOLDER" # not in a container, and nothing outside the folder
  export EAGER_SERVICE_LOADING=0 SKIP_SSL_CERT_DOWNLOAD=1 DISABLE_EVENTS=1
  # LocalStack's own way to run a function needs Docker, an image and a program from the internet.
  export LAMBDA_RUNTIME_EXECUTOR=process PYTHONPATH="$SCRIPTS/localstack_functions" XDG_CACHE_HOME="$VENV/cache"
  exec "$VENV/bin/python" -m "$MODULE"
}

main "$@"
