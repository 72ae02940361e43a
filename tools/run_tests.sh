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

# What touches mmengine, mmcv and mmseg; the rest does not depend on the stack and runs on one.
on_every_stack="tests/datasets tests/engine tests/evaluation tests/inference tests/test_reference.py
    tests/models/test_clip_encoder_decoder.py tests/tools/test_processes.py
    tests/tools/test_test.py tests/tools/test_train.py"

jobs=${JOBS:-$(($(nproc) < 4 ? $(nproc) : 4))}
checked=
for stack in $stacks; do
    bin=.venv-$stack/bin
    say "$stack: setting up"
    extras=test
    # The page on one stack: gradio takes an older Pillow, and the other keeps the newest.
    if [ "$stack" = onedl ]; then extras=test,demo,docs; fi
    tools/setup_env.sh "$stack" "$extras"
    "$bin/python" -c 'import mmcv, mmengine, mmseg, torch
print(*(f"{m.__name__} {m.__version__}" for m in (torch, mmcv, mmengine, mmseg)), sep=", ")'
    tests=
    if [ -n "$checked" ]; then
        tests=$on_every_stack
    else
        checked=yes
        say "ruff and mypy"
        "$bin/ruff" check .
        "$bin/ruff" format --check .
        "$bin/mypy"
    fi
    if [ "$stack" = onedl ]; then
        say "the site, strict on links"
        NO_MKDOCS_2_WARNING=1 "$bin/mkdocs" build --strict --quiet
    fi
    say "$stack: pytest"
    # One thread each: the test processes share the cores.
    # shellcheck disable=SC2086  # a list
    OMP_NUM_THREADS=1 "$bin/python" -m pytest -n "$jobs" --dist worksteal $tests "$@"
done
say "all passed: $stacks"
