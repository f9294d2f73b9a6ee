#!/usr/bin/env bash
# Builds the kernels with tests/native/kernels_test.cpp, every warning an error, and runs them.
#   tools/native.sh                      this machine's instruction sets
#   tools/native.sh address,undefined    the same under sanitizers; or: thread
#   tools/native.sh neon                 AArch64: cross-compiled, run by qemu
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:-plain}
bin=${BIN:-.venv/bin}

setting() { # expression over setup.py's names
  "$bin/python" -c "import runpy; print(*eval('$1', runpy.run_path('setup.py', run_name='flags')))"
}

read -ra flags <<<"$(setting 'FLAGS + [f"-I{path}" for path in INCLUDES]')"
# GCC 12 sees uninitialised values in its own AVX-512 header.
flags+=(-Wall -Wextra -Werror -Wno-maybe-uninitialized)
compiler=${CXX:-g++} run=() passes=60
case $variant in
  plain) flags+=(-O1) ;;  # the same arithmetic, compiled in half the time
  neon) compiler=aarch64-linux-gnu-g++ run=(qemu-aarch64) flags+=(-static -O1) passes=15 ;;
  thread) run=(setarch "$(uname -m)" -R) ;&  # its shadow memory does not fit a randomised layout
  *) read -ra checks <<<"$(setting "sanitizer_flags(\"$variant\")")" && flags+=("${checks[@]}") passes=15 ;;
esac

objects=build/native-$variant
mkdir -p "$objects"
printf '%s\n' csrc/isa_*.cpp csrc/threads.cpp tests/native/kernels_test.cpp |
  xargs -P "$(nproc)" -I{} sh -c '"$@" -c {} -o "$0/$(basename {} .cpp).o"' "$objects" \
    "$compiler" "${flags[@]}"
"$compiler" "${flags[@]}" "$objects"/*.o -o "$objects/kernels_test"
"${run[@]}" "$objects/kernels_test" "$passes"
