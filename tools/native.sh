#!/usr/bin/env bash
# Compiles the kernels and what they need of the system, every warning an error, and runs their tests
# without Python (tests/native/). Under a sanitizer tools/sanitize.sh does so.
#   tools/native.sh            this machine's instruction sets, with the objects of the extension
#   tools/native.sh clang      the same by clang
#   tools/native.sh mingw      Windows' interfaces: by MinGW-w64, run by Wine
#   tools/native.sh neon       AArch64, run by qemu
#   tools/native.sh s390x      big-endian, run by qemu
#   tools/native.sh wasm       WebAssembly, without threads: by Emscripten, run by node
#   tools/native.sh unfused    here, the scalar kernels' bits without a fused multiply-add
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:-plain}
bin=${BIN:-.venv/bin}

# What this machine does not run is not worth the time that it takes to compile.
avx512=(grep -qw avx512dq /proc/cpuinfo)
run=() link=() more=() parsed=() suffix='' platform='' like=plain
case $variant in
  plain) compiler=("${CXX:-g++}") passes=30 isas=() ;;
  unfused) compiler=("${CXX:-g++}") more=(-DFASTRNN_UNFUSED) passes=0 isas=(scalar) ;;
  clang)
    compiler=("${CLANG:-clang++-14}") passes=4 isas=(scalar avx2 avx512)
    "${avx512[@]}" || more+=(-DFASTRNN_NO_AVX512) parsed=(csrc/isa/avx512.cpp)
    ;;
  mingw)
    # On the stack of 64-bit Windows GCC aligns no vectors, and yet takes them to be aligned. And the fma
    # of MinGW-w64's library rounds twice, so the scalar kernels have the processor's.
    compiler=(x86_64-w64-mingw32-g++-posix) more=(-Wa,-muse-unaligned-vector-move -mfma) link=(-static)
    passes=4 isas=(scalar avx2 avx512) run=(/usr/lib/wine/wine64) suffix=.exe
    export WINEPREFIX=$PWD/build/wine WINEDEBUG=-all
    "${avx512[@]}" || more+=(-DFASTRNN_NO_AVX512)
    ;;
  neon) compiler=(aarch64-linux-gnu-g++) link=(-static) passes=6 isas=(scalar neon) run=(qemu-aarch64) ;;
  s390x) compiler=(s390x-linux-gnu-g++) link=(-static) passes=1 isas=(scalar) run=(qemu-s390x) ;;
  wasm)
    compiler=(em++) more=(-fexceptions) link=(-sALLOW_MEMORY_GROWTH -sSINGLE_FILE) passes=4
    isas=(scalar wasm128) run=(node) suffix=.js platform=emscripten-wasm32 like=unfused
    ;;
  *) sed -n 's/^#   //p' "$0" >&2 && exit 2 ;;
esac

read -ra flags <<<"$(env ${platform:+_PYTHON_HOST_PLATFORM=$platform} "$bin/python" -c \
  'import runpy; print(*runpy.run_path("setup.py", run_name="flags")["checked_flags"]())')"
flags+=("${more[@]}")
[[ ${compiler[0]} =~ (^|[-/])g\+\+ ]] || flags+=(-Wno-unknown-warning-option) # one that only GCC has

made=build/native/$variant parts=() objects=()
for name in "${isas[@]}"; do parts+=("csrc/isa/$name.cpp"); done
if [ "$variant" = plain ] || [ "$variant" = unfused ]; then
  # only what is older than its source; apart from what pip would take for its own
  FASTRNN_NO_EXT=0 "$bin/python" setup.py --quiet build_ext --build-lib build/native/lib
  built=$(ls -dt build/temp*/csrc | head -n 1)
  objects=("$built"/{isa/*,driver/*,runtime/{threads,allocator,dispatch}}.o)
  [ "$variant" = plain ] || objects=("${objects[@]/*scalar.o/}")
else
  parts+=(csrc/driver/*.cpp csrc/runtime/*.cpp)
fi
rm -rf "$made" && mkdir -p "$made"
for file in "${parsed[@]}"; do # for its warnings
  "${compiler[@]}" "${flags[@]}" -UFASTRNN_NO_AVX512 -fsyntax-only "$file"
done
printf '%s\n' tests/native/*.cpp "${parts[@]}" | xargs -P "$(nproc)" -I{} \
  sh -c 'o=$0/$(basename {} .cpp).o; "$@" -c {} -o "$o"' "$made" "${compiler[@]}" "${flags[@]}"
for part in "${parts[@]}"; do objects+=("$made/$(basename "$part" .cpp).o"); done
for test in kernels runtime training; do
  "${compiler[@]}" "${flags[@]}" "${link[@]}" "$made/${test}_test.o" ${objects[@]} -o "$made/$test$suffix"
done
"${run[@]}" "$made/runtime$suffix"
"${run[@]}" "$made/training$suffix" "$passes"
"${run[@]}" "$made/kernels$suffix" "$passes" | tr -d '\r' | tee "$made/said"

# Every platform must give the bits of this machine's scalar kernels; one that has no fused multiply-add,
# those that they have without one.
[ "$variant" != plain ] && [ "$variant" != unfused ] || exit 0
[ -e "build/native/$like/said" ] || "$0" "$like"
diff <(grep ^digest "build/native/$like/said") <(grep ^digest "$made/said")
echo "$variant: the bits of $like"
