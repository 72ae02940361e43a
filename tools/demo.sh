#!/usr/bin/env bash
# From a fresh clone to unseen classes segmented, with nothing but the package index:
#     bash tools/demo.sh
# Makes an environment, tests the OTSeg+ that comes with the project on fresh scenes, prints a table
# that compares it with CLIP's own map, and draws sheets of images. A second run reuses what is
# finished. PYTHON names the Python 3.10+ to make the environment with.
set -euo pipefail
cd "$(dirname "$0")/.."

out=work_dirs/demo
trained=configs/shapes/checkpoint/otseg_plus
start=$SECONDS
say() { printf '\n== %s (%s s)\n' "$*" $((SECONDS - start)); }

say "setting up the environment .venv-onedl"
tools/setup_env.sh onedl
export PATH="$PWD/.venv-onedl/bin:$PATH" OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore
mkdir -p "$out"

say "testing on fresh scenes, other than those of the README, and drawing sheets"
# Scenes of a seed that nothing was trained or chosen with: the README's figures are of others.
fresh=(test_dataloader.dataset.dataset.seed=1)
python tools/analysis/show_transport.py "$trained.py" "$trained.safetensors" --work-dir "$out" \
    --out "$out/sheet.png" --none-below 0.15 --refine --cfg-options "${fresh[@]}" \
    > "$out/sheet.log" 2>&1 &
python tools/shapes/run_benchmark.py --rows training_free checkpoint/otseg_plus --seeds 0 \
    --work-dir "$out" --cfg-options "${fresh[@]}" log_level=WARNING \
    test_dataloader.dataset.dataset.length=300 val_dataloader.dataset.dataset.length=100
wait $! || { cat "$out/sheet.log" >&2; exit 1; }

say "done"
echo "results, unseen classes hatched: $PWD/$out/sheet.png; who takes what: sheet_plans.png"
