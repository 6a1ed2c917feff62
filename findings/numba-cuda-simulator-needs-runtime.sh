#!/bin/sh
# numba-cuda: the simulator for machines without CUDA does not import without CUDA's runtime.
#
# With NUMBA_ENABLE_CUDASIM=1 `from numba import cuda` asks libcudart for its version and raises
# where the library is missing. The wheel nvidia-cuda-runtime is enough, a driver is not needed.
# The simulator in Numba itself (numba 0.68.1 without numba-cuda) imports without either.
#
# Guess before the run: the simulator needs neither driver nor runtime.
#
# Why it matters: tests of code with events run on the simulator on machines without a GPU. There
# the installation of numba-cuda replaces a simulator that works by one that does not import, until
# the runtime's wheel is added.
#
# Seen on 2026-11-28 with numba-cuda 0.30.4, numba 0.68.1, cuda-bindings 13.5.0, Python 3.11, Linux
# x86-64 without CUDA:
#   numba alone: imports
#   with numba-cuda: DynamicLibNotFoundError
#   with nvidia-cuda-runtime 13.0.96: imports
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
cat >"$dir/try.py" <<'PY'
try:
    from numba import cuda
except Exception as error:
    print(type(error).__name__)
else:
    cuda.event().record()
    print("imports")
PY
install() {
    "$dir/venv/bin/pip" install --quiet "$@"
}
attempt() {
    (cd "$dir" && env -u CUDA_HOME -u CUDA_PATH NUMBA_ENABLE_CUDASIM=1 venv/bin/python try.py)
}
if ldconfig -p | grep -q libcudart; then
    echo "this machine has CUDA's runtime, so the behaviour cannot be seen"
    exit 1
fi
install numba==0.68.1 numpy==2.4.6
alone=$(attempt)
echo "numba alone: $alone"
install numba-cuda==0.30.4 cuda-bindings==13.5.0
package=$(attempt)
echo "with numba-cuda: $package"
install nvidia-cuda-runtime==13.0.96
runtime=$(attempt)
echo "with nvidia-cuda-runtime 13.0.96: $runtime"
[ "$alone $package $runtime" = "imports DynamicLibNotFoundError imports" ] || {
    echo "the behaviour has changed"
    exit 1
}
