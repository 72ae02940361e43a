#!/usr/bin/env bash
# Run a tool in several processes; dist_train.sh and dist_test.sh call it:
#     dist.sh TOOL PROCESSES ARGUMENTS OF THE TOOL...
# On several machines, run it on each of them with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

tool=$(dirname "$0")/$1
processes=$2
shift 2
if [[ ! $processes =~ ^[1-9][0-9]*$ ]]; then
    echo "the number of processes must be 1 or more, got '$processes'" >&2
    exit 2
fi
# One process looks at the config and the data first, and downloads CLIP's weights if need be.
"${PYTHON:-python}" "$tool" "$@" --check-only

if [ -n "${NNODES:-}${PORT:-}" ]; then
    meet=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}")
    meet+=(--master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
else
    meet=(--standalone) # a free port on this machine
fi
# torchrun and mmengine would set these with a warning.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
exec "${PYTHON:-python}" -m torch.distributed.run "${meet[@]}" --nproc_per_node "$processes" \
    "$tool" "$@" --launcher pytorch
