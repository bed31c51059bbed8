#!/usr/bin/env bash
# Compose v2 and docker-compose 1.29 on a bare Debian machine, one beside the other, for the tests: `docker compose` and
# `docker-compose`. Does nothing where both are.
set -euo pipefail

PLUGINS="${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins"

if docker compose version >/dev/null 2>&1 && command -v docker-compose >/dev/null; then
  exit 0
fi
echo "installing docker-compose …" >&2
. "$(dirname "$0")/trixie.sh"
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends 'docker-compose=1.29.*' >/dev/null
if ! docker compose version >/dev/null 2>&1; then # its package would take the other's place
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root "docker-compose$RELEASE" && dpkg -x docker-compose_*.deb .)
  mkdir -p "$PLUGINS"
  cp "$folder/usr/libexec/docker/cli-plugins/docker-compose" "$PLUGINS/"
fi
