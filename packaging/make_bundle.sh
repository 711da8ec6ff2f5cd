#!/bin/sh
# Packs everything that an installation without a network needs: the wheels of the node and of what it uses, the
# installer, the pins.  usage: make_bundle.sh [EXTRA]     EXTRA: cpu, for TensorFlow
# The bundle fits the Python version and processor that it was made with.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$HERE")
: "${PYTHON:=python3}" "${OUT:=$ROOT/dist}"
extra=${1:-}

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$ROOT/dicom_node/__init__.py")
name=dicom-node-$version${extra:+-$extra}-$("$PYTHON" -c \
    'import platform, sys; print(f"py{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$name/wheels" "$OUT"
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check -c "$ROOT/constraints.txt" \
    --wheel-dir "$work/$name/wheels" "$ROOT${extra:+[$extra]}" >&2
cp "$HERE/install.sh" "$ROOT/LICENSE" "$ROOT/CHANGELOG.md" "$work/$name/"
echo "$version" > "$work/$name/VERSION"
(cd "$work/$name" && sha256sum VERSION install.sh wheels/* > SHA256SUMS)
tar -C "$work" -czf "$OUT/$name.tar.gz" "$name"
echo "$OUT/$name.tar.gz"
