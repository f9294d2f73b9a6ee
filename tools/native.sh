#!/usr/bin/env bash
# Runs the kernels with tests/native/kernels_test.cpp; under a sanitizer tools/sanitize.sh does so.
#   tools/native.sh         this machine's instruction sets, with the objects of the extension
#   tools/native.sh neon    AArch64: cross-compiled, every warning an error, and run by qemu
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:-plain}
bin=${BIN:-.venv/bin}

read -ra flags <<<"$("$bin/python" -c \
  'import runpy; print(*runpy.run_path("setup.py", run_name="flags")["checked_flags"]())')"
program=build/kernels_test-$variant
case $variant in
  plain)
    compiler=${CXX:-g++} run=() passes=30
    # only what is older than its source; apart from what pip would take for its own
    FASTRNN_NO_EXT=0 "$bin/python" setup.py --quiet build_ext --build-lib build/native
    objects=$(ls -dt build/temp*/csrc | head -n 1)
    ;;
  neon)
    compiler=aarch64-linux-gnu-g++ run=(qemu-aarch64) flags+=(-static) passes=15
    objects=build/objects-neon
    mkdir -p "$objects"/{isa,driver}
    printf '%s\n' csrc/{isa,driver}/*.cpp csrc/threads.cpp |
      xargs -P "$(nproc)" -I{} sh -c 'o={}; o=${o#csrc/}; "$@" -c {} -o "$0/${o%.cpp}.o"' "$objects" \
        "$compiler" "${flags[@]}"
    ;;
  *) echo "usage: $0 [neon]" >&2 && exit 2 ;;
esac
"$compiler" "${flags[@]}" tests/native/kernels_test.cpp "$objects"/{isa/*,driver/*,threads}.o -o "$program"
"${run[@]}" "$program" "$passes"
