# Sourced by localstack.sh and ministack.sh: a server from PyPI in a venv of its own, started and stopped on 127.0.0.1.
#
#   install, is_installed   as in venv.sh
#   start [FOLDER]          install, start, wait until it is healthy, print its endpoint; one that runs there already is kept
#   stop [FOLDER]           end it; its data goes with it
#
# FOLDER/NAME holds process id, log and data; several can run, each with its FOLDER and its PORT (0: a free one).
# Who sources this says NAME, MODULE and HEALTH, and how to `prepare` the new venv and to `serve` on $PORT.
. "$(dirname "$0")/venv.sh"

PORT="${PORT:-4566}"
LIMIT_SECONDS=90
unset "${!AWS_@}" # A server that runs functions hands its environment on to them.

runs() { # the process that was started here, not one that got its number since
  [ -f "$FOLDER/pid" ] && ps -ww -o args= -p "$(cat "$FOLDER/pid")" | grep -F "$MODULE" >/dev/null
}

start() {
  runs && cat "$FOLDER/endpoint" && return
  install
  mkdir -p "$FOLDER/tmp"
  if [ "$PORT" = 0 ]; then
    PORT=$("$VENV/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
  fi
  echo "http://127.0.0.1:$PORT" >"$FOLDER/endpoint"
  (cd "$FOLDER" && export TMPDIR="$FOLDER/tmp" PORT && serve) >"$FOLDER/log" 2>&1 </dev/null &
  echo $! >"$FOLDER/pid"
  for _ in $(seq $((LIMIT_SECONDS * 5))); do
    kill -0 $! 2>/dev/null || break
    curl -sf -o /dev/null "http://127.0.0.1:$PORT$HEALTH" && cat "$FOLDER/endpoint" && return
    sleep 0.2
  done
  echo "$NAME did not start on port $PORT; the end of $FOLDER/log:" >&2
  tail -n 20 "$FOLDER/log" >&2
  stop
  exit 1
}

stop() {
  if runs; then
    pid=$(cat "$FOLDER/pid")
    kill "$pid"
    for _ in $(seq 25); do # open connections of clients may hold it up
      runs || break
      sleep 0.2
    done
    ! runs || kill -9 "$pid"
  fi
  [ ! -f "$FOLDER/endpoint" ] || rm -rf "$FOLDER"
}

main() {
  FOLDER="${2:-$STATE}/$NAME"
  case "${1:-start}" in
    install | is_installed | start | stop) "${1:-start}" ;;
    *) echo "usage: $0 [install|is_installed|start|stop] [FOLDER]" >&2 && exit 2 ;;
  esac
}
