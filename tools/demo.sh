#!/usr/bin/env bash
# From a fresh clone to unseen classes segmented, in minutes on two cores, with nothing but the
# package index:
#     bash tools/demo.sh
# Makes an environment, trains OTSeg on procedural scenes with masks of 15 of the 20 classes, prints
# the table against CLIP's own map, and leaves a sheet of pictures. What is there is used again, also
# after an interruption. PYTHON says which Python 3.10+ to make the environment with.
set -euo pipefail
cd "$(dirname "$0")/.."

clip=configs/shapes/clip/shapes_clip
if [ ! -e "$clip.safetensors" ]; then
    echo "the weights $clip.safetensors are not there; make them first, in an environment of" >&2
    echo "tools/setup_env.sh onedl: python tools/shapes/pretrain_clip.py $clip.py --work-dir DIR" >&2
    exit 1
fi

out=work_dirs/demo
jobs=$(($(nproc) < 2 ? 1 : 2)) # before OMP_NUM_THREADS is set, which nproc believes
start=$SECONDS
say() { printf '\n== %s (%s s)\n' "$*" $((SECONDS - start)); }

say "setting up the environment .venv-onedl"
tools/setup_env.sh onedl
python=.venv-onedl/bin/python
export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore

say "training and testing two seeds, each on one core"
"$python" tools/shapes/run_benchmark.py --rows training_free otseg otseg_plus --seeds 0 1 \
    --jobs "$jobs" --show-bias calibrated --work-dir "$out"

say "drawing pictures"
bias=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["bias"])' \
    "$out/otseg/seed_0/evaluation/result.json")
"$python" tools/analysis/show_transport.py configs/shapes/otseg.py \
    "$(cat "$out/otseg/seed_0/last_checkpoint")" --work-dir "$out" --indices 0 1 2 3 \
    --most-classes 1 --out "$out/pictures.png" --cfg-options model.decode_head.seen_bias="$bias"

say "done"
cat "$out/table.md"
echo "pictures, unseen classes hatched: $PWD/$out/pictures.png"
