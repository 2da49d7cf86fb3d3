#!/usr/bin/env bash
# Builds the extension with AddressSanitizer and with UndefinedBehaviorSanitizer, each into a temporary directory, and
# runs the op tests of the backends compiled into it. Any report fails. Torch and OpenMP are in the same process and not
# instrumented, so leaks are not looked for. Usage: tests/sanitizers.sh [python]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
jobs=()
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')
installed=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Builds with a sanitizer and runs the tests.
run() {
  local sanitizer=$1
  echo "== $sanitizer"
  build=$work/$sanitizer
  # The package as it is, with its compiled module replaced by the one built here.
  mkdir -p "$build/package"
  cp -r python/bre "$build/package/bre"
  rm -f "$build"/package/bre/_core*.so
  cmake -S . -B "$build/cmake" -DBRE_SANITIZE=$sanitizer -DBRE_CUDA=OFF -DCMAKE_BUILD_TYPE=Release -Dpybind11_DIR="$prefix" \
    -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" >/dev/null
  cmake --build "$build/cmake"
  cmake --install "$build/cmake" --prefix "$build/package" >/dev/null
  runtime=lib${sanitizer/address/asan}.so
  runtime=${runtime/undefined/ubsan}
  # -S with the installed packages on PYTHONPATH: the import hook of an editable installation must not come first.
  (
    export PYTHONPATH=$build/package:$installed
    export LD_PRELOAD=$(${CXX:-g++} -print-file-name="$runtime"):$(${CXX:-g++} -print-file-name=libstdc++.so)
    export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    "$python" -S -c "import torch, bre._core as core; assert core.__file__.startswith('$build'), core.__file__"
    "$python" -S -m pytest -q -p no:cacheprovider -k "not triton and not emulated" tests/ops/test_ops.py
  )
}

# Side by side, since tests use one core most of the time; what each says comes when it has ended.
for sanitizer in address undefined; do
  (run $sanitizer) >"$work/$sanitizer.log" 2>&1 &
  jobs[${#jobs[@]}]=$!
done
status=0
for number in "${!jobs[@]}"; do
  wait "${jobs[$number]}" || status=1
done
cat "$work/address.log" "$work/undefined.log"
exit $status
