#!/bin/sh
# Install the toolkit in an image being built; the Dockerfile and lisbet.def both run it.
#   sh install.sh python   make sure that there is a Python
#   sh install.sh          install into /opt/lisbet from the checkout at $SOURCE, and try it
# $TORCH is torch's build, $TORCH_INDEX the index it is on, where that is not pip's own.
set -eu

PREFIX=/opt/lisbet
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

has() { python3 -c "$1" 2> /dev/null; }

from_debian() {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@"
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
}

has 'import sys; sys.exit(sys.version_info < (3, 11))' || from_debian python3 ca-certificates
[ "${1:-}" = python ] && exit 0

has 'import ensurepip, venv' || from_debian python3-venv
build=$(mktemp -d)
python3 -m venv "$build/venv"
"$build/venv/bin/pip" install --quiet --require-hashes -r "$SOURCE/containers/build.lock"
(cd "$SOURCE" && "$build/venv/bin/python" -m hatchling build -t wheel -d "$build")

# The system's own packages are seen, so that a base image may bring torch.
python3 -m venv --system-site-packages "$PREFIX"
if [ -n "$TORCH" ]; then
    "$PREFIX/bin/pip" install --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
fi
"$PREFIX/bin/pip" install --quiet --require-hashes --no-deps -r "$SOURCE/containers/requirements.lock"
"$PREFIX/bin/pip" install --quiet --no-deps --no-index "$build"/lisbet-*.whl
rm -rf "$build"

# A broken image is not published.
export PATH="$PREFIX/bin:$PATH" HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
betman --version
accelerate launch --help > /dev/null
torchrun --help > /dev/null
python -c 'import torch, movement, netCDF4, h5py, lisbet.training.train, lisbet.commands.applying.predict, lisbet.commands.pictures.plots'
"$PREFIX/bin/pip" check
"$PREFIX/bin/pip" uninstall --quiet --yes pip
rm -rf /tmp/matplotlib
