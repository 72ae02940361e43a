#!/usr/bin/env bash
# From a fresh clone to unseen classes segmented, with nothing but the package index:
#     bash tools/demo.sh            # tests the OTSeg+ that comes with the project on fresh scenes
#     bash tools/demo.sh --train    # trains two seeds instead, and tests them
# Makes an environment, prints a table that compares the model with CLIP's own map, and writes
# sheets of images. A second run reuses finished steps, also after an interruption. PYTHON names the
# Python 3.10+ to make the environment with.
set -euo pipefail
cd "$(dirname "$0")/.."

case "$*" in
    "") out=work_dirs/demo ;;
    --train) out=work_dirs/demo_train ;;
    *) echo "usage: tools/demo.sh [--train]" >&2; exit 2 ;;
esac
clip=configs/shapes/clip/shapes_clip
trained=configs/shapes/checkpoint/otseg_plus
if [ ! -e "$clip.safetensors" ]; then
    echo "the weights $clip.safetensors are not there; make them first, in an environment of" >&2
    echo "tools/setup_env.sh onedl: python tools/shapes/pretrain_clip.py $clip.py --work-dir DIR" >&2
    exit 1
fi

if [ $# = 0 ] && [ ! -e "$trained.safetensors" ]; then
    echo "the trained weights $trained.safetensors are not there; train with: bash tools/demo.sh --train" >&2
    exit 1
fi

jobs=$(($(nproc) < 2 ? 1 : 2)) # before OMP_NUM_THREADS is set, which nproc believes
start=$SECONDS
say() { printf '\n== %s (%s s)\n' "$*" $((SECONDS - start)); }

say "setting up the environment .venv-onedl"
tools/setup_env.sh onedl
python=.venv-onedl/bin/python
export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore
mkdir -p "$out"

draw() { # CONFIG CHECKPOINT OPTION...
    "$python" tools/analysis/show_transport.py "$1" "$2" --work-dir "$out" \
        --out "$out/sheet.png" --none-below 0.15 --refine --cfg-options "${@:3}"
}

if [ "$out" = work_dirs/demo ]; then
    say "testing on fresh scenes, other than those of the README, and drawing sheets"
    # Scenes of a seed that nothing was trained or chosen with: the README's figures are of others.
    fresh=(test_dataloader.dataset.dataset.seed=1)
    draw "$trained.py" "$trained.safetensors" "${fresh[@]}" > "$out/sheet.log" 2>&1 &
    "$python" tools/shapes/run_benchmark.py --rows training_free checkpoint/otseg_plus \
        --seeds 0 --work-dir "$out" --cfg-options "${fresh[@]}" \
        test_dataloader.dataset.dataset.length=300 val_dataloader.dataset.dataset.length=100
    wait $! || { cat "$out/sheet.log" >&2; exit 1; }
else
    say "training and testing two seeds, each on one core"
    "$python" tools/shapes/run_benchmark.py --rows training_free otseg otseg_plus --seeds 0 1 \
        --jobs "$jobs" --work-dir "$out"
    say "drawing sheets"
    bias=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["seen_bias"])' \
        "$out/otseg/seed_0/evaluation/bias_chosen.json")
    draw configs/shapes/otseg.py "$(cat "$out/otseg/seed_0/last_checkpoint")" \
        model.decode_head.seen_bias="$bias"
fi

say "done"
echo "results, unseen classes hatched: $PWD/$out/sheet.png; who takes what: sheet_plans.png"
