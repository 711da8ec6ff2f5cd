#!/bin/sh
# Brings the peers that interoperability tests and the demonstration talk to, from Debian's own packages.
# usage: install_peers.sh [PACKAGE...]     default: dcmtk orthanc orthanc-dicomweb dicom3tools chromium prometheus
set -eu
[ $# -gt 0 ] || set -- dcmtk orthanc orthanc-dicomweb dicom3tools chromium prometheus

missing=
for package; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "missing:$missing; on Debian run once: sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # the list is meant to be split
apt-get install -y -qq --no-install-recommends $missing >&2 || {
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends $missing >&2
}
