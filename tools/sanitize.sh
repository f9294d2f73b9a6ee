#!/usr/bin/env bash
# The tests of the compiled backend in an interpreter with a sanitizer's run time.
#   tools/sanitize.sh address [pytest arguments]    AddressSanitizer and UndefinedBehaviorSanitizer
#   tools/sanitize.sh thread  [pytest arguments]    ThreadSanitizer
#   tools/sanitize.sh thread native                 the kernels without Python; so with address
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
case $1 in
  address) sanitizers=address,undefined library=libasan.so ;;
  thread) sanitizers=thread library=libtsan.so ;;
  *) echo "usage: $0 address|thread [native | pytest arguments]" >&2 && exit 2 ;;
esac

# What this machine does not run is not worth the minutes that it takes to compile.
defines=
grep -qw avx512dq /proc/cpuinfo || defines=FASTRNN_NO_AVX512

tree=$PWD/build/tree-$1
shift
rm -rf "$tree"
build=(env FASTRNN_NO_EXT=0 FASTRNN_SANITIZE=$sanitizers FASTRNN_DEFINES=$defines)
"${build[@]}" "$bin/pip" install --quiet --no-deps --target "$tree" .

# ThreadSanitizer's shadow memory does not fit a randomised layout.
fixed=(setarch "$(uname -m)" -R)

if [ "${1:-}" = native ]; then # linked with the objects that pip has left
  read -ra setup <<<"$("${build[@]}" "$bin/python" -c 'import runpy
setup = runpy.run_path("setup.py", run_name="flags")
print(setup["VARIANT"], *setup["checked_flags"]())')"
  objects=(build/"${setup[0]}"/temp*/csrc/{isa/*,driver/*,runtime/{threads,allocator,dispatch}}.o)
  for test in runtime kernels training; do
    g++ "${setup[@]:1}" "tests/native/${test}_test.cpp" "${objects[@]}" -o "$tree/$test"
  done
  ASAN_OPTIONS=allocator_may_return_null=1 "${fixed[@]}" "$tree/runtime"
  "${fixed[@]}" "$tree/training" 8
  exec "${fixed[@]}" "$tree/kernels" 15
fi

# CPython keeps memory until the end, which is no leak. A size that cannot be had is a test's
# question, and MemoryError the answer. Reports go to files, since pytest captures what is printed.
reports=$tree/report
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:log_path=$reports
export UBSAN_OPTIONS=print_stacktrace=1:log_path=$reports
export TSAN_OPTIONS=halt_on_error=1:die_after_fork=0:suppressions=$PWD/tools/tsan.supp:log_path=$reports
export PYTHONPATH=$tree FASTRNN_TEST_BACKENDS=cpu PYTHONMALLOC=malloc
# The C++ run time comes with it, so that the sanitizer sees exceptions.
preload=$(g++ -print-file-name=$library):$(g++ -print-file-name=libstdc++.so)
"${fixed[@]}" env LD_PRELOAD="$preload" "$bin/pytest" "$@" || {
  status=$?
  cat "$reports".* 2>/dev/null || : # pytest may fail without one
  exit $status
}
