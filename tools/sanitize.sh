#!/usr/bin/env bash
# The tests of the compiled backend in an interpreter with a sanitizer's run time.
#   tools/sanitize.sh address [pytest arguments]    AddressSanitizer and UndefinedBehaviorSanitizer
#   tools/sanitize.sh thread  [pytest arguments]    ThreadSanitizer
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
case $1 in
  address) sanitizers=address,undefined library=libasan.so ;;
  thread) sanitizers=thread library=libtsan.so ;;
  *) echo "usage: $0 address|thread [pytest arguments]" >&2 && exit 2 ;;
esac
shift

tree=build/tree-$sanitizers
rm -rf "$tree"
FASTRNN_NO_EXT=0 FASTRNN_SANITIZE=$sanitizers \
  "$bin/pip" install --quiet --no-deps --target "$tree" .

# CPython keeps memory until the end, which is no leak. The C++ run time comes first, so that the
# sanitizer sees exceptions.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
export PYTHONPATH=$PWD/$tree FASTRNN_TEST_BACKENDS=cpu PYTHONMALLOC=malloc
preload=$(g++ -print-file-name=$library):$(g++ -print-file-name=libstdc++.so)
# ThreadSanitizer's shadow memory does not fit a randomised layout.
setarch "$(uname -m)" -R env LD_PRELOAD="$preload" "$bin/pytest" "$@"
