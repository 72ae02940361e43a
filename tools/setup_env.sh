#!/usr/bin/env bash
# Make or renew the environment .venv-<stack> of this checkout, from the package index alone:
#     tools/setup_env.sh onedl|openmmlab [EXTRA,...]
# with the named extras of setup.py, such as test,demo. Does nothing if neither setup.py nor this
# script has changed. PYTHON names the Python 3.10+ to use.
set -euo pipefail
cd "$(dirname "$0")/.."

mmcv=mmcv==2.1.0

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
        echo "compiling $mmcv for $built, about 15 core minutes"
        rm -rf "$cache.part"
        MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)} "$venv/bin/python" -m pip wheel \
            --no-build-isolation --no-deps --wheel-dir "$cache.part" "$mmcv"
        mv "$cache.part" "$cache"
    fi
    install "$venv" "$cache"/*.whl
}

case "${1:-}" in
    onedl | openmmlab) stack=$1 venv=.venv-$1 ;;
    *) echo "usage: tools/setup_env.sh onedl|openmmlab [EXTRA,...]" >&2; exit 2 ;;
esac
extras=$stack${2:+,$2}
stamp=$venv/made_from_$extras
made_from=$(cat setup.py tools/setup_env.sh | cksum)
if [ "$(cat "$stamp" 2> /dev/null)" = "$made_from" ]; then
    exit 0
fi
if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "Python 3.10 or later is needed; say where it is with PYTHON=..." >&2
        exit 1
    }
    "${PYTHON:-python3}" -m venv "$venv"
fi
if [ "$stack" = openmmlab ]; then
    compile_mmcv "$venv"
    install "$venv" 'torch<2.10' 'setuptools<81' -e ".[$extras]"
else
    install "$venv" -e ".[$extras]"
fi
"$venv/bin/python" -c 'import mmseg_otseg, torchvision' # they fit together
echo "$made_from" > "$stamp"
