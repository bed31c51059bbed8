#!/usr/bin/env bash
# The SageMaker Python SDK from PyPI, each line in a venv of its own: scripts/sdk.sh sdk2|sdk3 [install|is_installed|folder]
#
# `folder` prints the venv's folder, whether it is there or not.
case "${1:-}/${2:-install}" in
  sdk[23]/install | sdk[23]/is_installed | sdk[23]/folder) ;;
  *) echo "usage: $0 sdk2|sdk3 [install|is_installed|folder]" >&2 && exit 2 ;;
esac
NAME="$1"
. "$(dirname "$0")/venv.sh"

folder() {
  echo "$VENV"
}

"${2:-install}"
