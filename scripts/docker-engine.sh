#!/usr/bin/env bash
# A Docker engine on a bare Debian machine: installs Debian's packages where none is there, starts dockerd, waits for it.
# Prints nothing and does nothing where an engine already answers. The log is in $XDG_STATE_HOME/greenroom/dockerd.log.
set -euo pipefail

STATE="${XDG_STATE_HOME:-$HOME/.local/state}/greenroom"
LIMIT_SECONDS=60

answers() {
  command -v docker >/dev/null && docker version >/dev/null 2>&1
}

answers && exit 0
if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null; then
  # Debian 12's engine of 2020 takes a tenth of a second for every archive it moves.
  echo "installing docker.io …" >&2
  . "$(dirname "$0")/trixie.sh"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "docker.io$RELEASE" "docker-buildx$RELEASE" iptables >/dev/null
fi
mkdir -p "$STATE"
setsid dockerd --log-level=warn >"$STATE/dockerd.log" 2>&1 </dev/null &
echo $! >"$STATE/dockerd.pid"
for _ in $(seq $((LIMIT_SECONDS * 2))); do
  answers && exit 0
  sleep 0.5
done
echo "dockerd did not answer within $LIMIT_SECONDS s; the end of $STATE/dockerd.log:" >&2
tail -n 20 "$STATE/dockerd.log" >&2
exit 1
