#!/usr/bin/env bash
# A stand-in for the base image where no container registry can be reached: Debian bookworm with Python 3.11 under
# the name that the Dockerfiles' BASE_IMAGE argument has by default. Does nothing where an image of that name is.
#
#   scripts/base-image.sh [NAME]
set -euo pipefail

NAME="${1:-python:3.11-slim-bookworm}"

docker image inspect "$NAME" >/dev/null 2>&1 && exit 0
if ! command -v mmdebstrap >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "making $NAME from Debian's packages …" >&2
# The host's own certificates, where it names some: pip inside `docker build` goes the host's way.
bundle="${PIP_CERT:-${SSL_CERT_FILE:-}}"
hooks=(--customize-hook='ln -s python3 "$1/usr/bin/python"')
# What the original has not either: this image is for pip into any place.
hooks+=(--customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED')
if [ -n "$bundle" ] && [ -f "$bundle" ]; then
  hooks+=(--customize-hook="copy-in $bundle /usr/local/share" --customize-hook="mv \"\$1/usr/local/share/$(basename "$bundle")\" \"\$1/etc/ssl/certs/ca-certificates.crt\"")
fi
mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
  "${hooks[@]}" bookworm "$folder/base.tar"
docker import --change 'CMD ["python3"]' --change 'ENV PYTHONUNBUFFERED=1' "$folder/base.tar" "$NAME" >/dev/null
