#!/usr/bin/env bash
# Python on a big-endian machine: Debian's CPython and NumPy for s390x, run by qemu, read here-written files
# and train. Needs apt and the network; the packages are unpacked into build/, not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
at=$PWD/build/s390x root=$PWD/build/s390x/root
if ! [ -d "$root" ]; then
  mkdir -p "$at"/{lists,archives}/partial
  : >"$at/status"
  apt() {
    apt-get -qq -o Dir::State="$at" -o Dir::State::status="$at/status" -o Dir::Cache="$at" \
      -o APT::Architecture=s390x -o APT::Architectures=s390x -o APT::Sandbox::User=root "$@"
  }
  apt update
  apt install --yes --no-install-recommends --download-only python3-numpy >/dev/null
  for package in "$at"/archives/*.deb; do dpkg-deb -x "$package" "$root.new"; done
  mv "$root.new" "$root"
fi
PYTHONPATH=$PWD "$bin/python" tests/native/big_endian.py write "$at/little"
libraries=$root/usr/lib/s390x-linux-gnu
PYTHONPATH=$PWD:$root/usr/lib/python3/dist-packages PYTHONDONTWRITEBYTECODE=1 qemu-s390x -L "$root" \
  -E "LD_LIBRARY_PATH=$libraries:$libraries/blas:$libraries/lapack" -E "PYTHONHOME=$root/usr" \
  "$root/usr/bin/python3" tests/native/big_endian.py read "$at/little"
echo "big-endian: the files, weights and results of this machine"
