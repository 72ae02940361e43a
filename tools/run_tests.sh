#!/usr/bin/env bash
# Set up an environment of its own and run every check and test in it. From a fresh clone that is
#     tools/run_tests.sh
# Environments (.venv-<stack>) are reused. PYTHON says which Python 3.10+ to make them with.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<USAGE
usage: tools/run_tests.sh [--stack onedl|openmmlab|all] [-- PYTEST ARGUMENTS...]
  --stack  which packages provide mmseg (default: onedl); openmmlab compiles mmcv, which takes
           minutes the first time and needs a C++ compiler
USAGE
}

mmcv=mmcv==2.1.0
stacks=onedl
while [ $# -gt 0 ]; do
    case "$1" in
        --stack) stacks=${2:?"$(usage)"}; shift 2 ;;
        --stack=*) stacks=${1#*=}; shift ;;
        --) shift; break ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
case "$stacks" in
    onedl | openmmlab) ;;
    all) stacks="onedl openmmlab" ;;
    *) usage >&2; exit 2 ;;
esac

say() { printf '\n== %s\n' "$*"; }

# install ENVIRONMENT PACKAGE... : with uv, which is quicker, or with pip where uv does not work.
install() {
    local venv=$1
    shift
    if "$venv/bin/python" -m pip install --quiet uv &&
        "$venv/bin/python" -m uv pip install --python "$venv/bin/python" "$@"; then
        return
    fi
    "$venv/bin/python" -m pip install "$@"
}

# The wheel of mmcv, compiled for the torch of the environment; kept, as that takes minutes.
compile_mmcv() {
    local venv=$1 built cache
    install "$venv" 'torch>=2.6,<2.10' torchvision 'setuptools<81' wheel ninja psutil numpy
    built=$("$venv/bin/python" -c 'import platform, sys, torch
print(f"torch{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")')
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmseg_otseg/${mmcv/==/-}-$built
    if ! compgen -G "$cache/*.whl" > /dev/null; then
        command -v "${CXX:-c++}" > /dev/null || {
            echo "mmcv must be compiled, and there is no C++ compiler" >&2
            return 1
        }
        say "compiling $mmcv for $built, about 15 core minutes"
        rm -rf "$cache.part"
        MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)} "$venv/bin/python" -m pip wheel \
            --no-build-isolation --no-deps --wheel-dir "$cache.part" "$mmcv"
        mv "$cache.part" "$cache"
    fi
    install "$venv" "$cache"/*.whl
}

# Make or renew the environment of a stack; nothing is done while what it is made from is the same.
set_up() {
    local stack=$1 venv=.venv-$1 made_from
    made_from=$(cat setup.py tools/run_tests.sh | cksum)
    if [ "$(cat "$venv/made_from" 2> /dev/null)" = "$made_from" ]; then
        return
    fi
    if [ ! -x "$venv/bin/python" ]; then
        "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
            echo "Python 3.10 or later is needed; say where it is with PYTHON=..." >&2
            return 1
        }
        "${PYTHON:-python3}" -m venv "$venv"
    fi
    if [ "$stack" = openmmlab ]; then
        compile_mmcv "$venv"
        install "$venv" 'torch<2.10' 'setuptools<81' -e ".[openmmlab,test]"
    else
        install "$venv" -e ".[onedl,test]"
    fi
    "$venv/bin/python" -c 'import mmseg_otseg, torchvision' # they fit together
    echo "$made_from" > "$venv/made_from"
}

jobs=${JOBS:-$(($(nproc) < 4 ? $(nproc) : 4))}
checked=
for stack in $stacks; do
    bin=.venv-$stack/bin
    say "$stack: setting up"
    set_up "$stack"
    "$bin/python" -c 'import mmcv, mmengine, mmseg, torch
print(*(f"{m.__name__} {m.__version__}" for m in (torch, mmcv, mmengine, mmseg)), sep=", ")'
    if [ -z "$checked" ]; then # they do not depend on the stack
        checked=yes
        say "ruff and mypy"
        "$bin/ruff" check .
        "$bin/ruff" format --check .
        "$bin/mypy"
    fi
    say "$stack: pytest"
    # One thread each: the test processes share the cores.
    OMP_NUM_THREADS=1 "$bin/python" -m pytest -n "$jobs" "$@"
done
say "all passed: $stacks"
