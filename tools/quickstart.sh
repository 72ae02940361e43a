#!/usr/bin/env bash
# From a fresh clone to a trained and tested model in minutes, with nothing but the package index:
#     bash tools/quickstart.sh
# Makes an environment, writes generated scenes in VOC's layout, trains the VOC config on them with a
# small CLIP of random weights, on two processes, tests the model, and draws overlays. It shows that
# everything runs; it says nothing about accuracy. A second run reuses finished steps, also after an
# interruption. PYTHON names the Python 3.10+ to make the environment with.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
out=work_dirs/quickstart
config=$root/configs/quickstart/voc_layout.py
start=$SECONDS
say() { printf '\n== %s (%s s)\n' "$*" $((SECONDS - start)); }

say "setting up the environment .venv-onedl"
tools/setup_env.sh onedl
export PATH="$root/.venv-onedl/bin:$PATH" OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore
mkdir -p "$out"
cd "$out" # the config finds data/VOCdevkit/VOC2012 here

say "writing scenes to $out/data"
[ -e data/complete ] || {
    python "$root/tools/shapes/export_voc.py" data --train 120 --aug 60 --val 20 --size 128
    touch data/complete
}

say "training on two processes"
bash "$root/tools/dist_train.sh" "$config" 2 --work-dir run --resume

say "testing"
python "$root/tools/test.py" "$config" "$(cat run/last_checkpoint)" --work-dir run/test --show-dir drawn

say "done: checkpoints and logs in $out/run, drawings in $out/drawn/vis_data/vis_image"
