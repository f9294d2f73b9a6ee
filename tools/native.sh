#!/usr/bin/env bash
# Builds the kernels with tests/native/kernels_test.cpp, every warning an error, and runs them; under a
# sanitizer tools/sanitize.sh does so.
#   tools/native.sh         this machine's instruction sets
#   tools/native.sh neon    AArch64: cross-compiled, run by qemu
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:-plain}
bin=${BIN:-.venv/bin}

read -ra flags <<<"$("$bin/python" -c \
  'import runpy; print(*runpy.run_path("setup.py", run_name="flags")["checked_flags"]())')"
case $variant in
  plain) compiler=${CXX:-g++} run=() passes=30 ;;
  neon) compiler=aarch64-linux-gnu-g++ run=(qemu-aarch64) flags+=(-static) passes=15 ;;
  *) echo "usage: $0 [neon]" >&2 && exit 2 ;;
esac

objects=build/native-$variant
mkdir -p "$objects"
printf '%s\n' csrc/isa_*.cpp csrc/threads.cpp tests/native/kernels_test.cpp |
  xargs -P "$(nproc)" -I{} sh -c '"$@" -c {} -o "$0/$(basename {} .cpp).o"' "$objects" \
    "$compiler" "${flags[@]}"
"$compiler" "${flags[@]}" "$objects"/*.o -o "$objects/kernels_test"
"${run[@]}" "$objects/kernels_test" "$passes"
