#!/usr/bin/env bash
# Run a tool in several processes: dist_run.sh PROCESSES TOOL [ARGUMENTS...]
# On several machines run it on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

processes=$1
tool=$2
shift 2

if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    group=(--standalone) # a free port of this machine
else
    group=(
        --nnodes "${NNODES:-1}"
        --node_rank "${NODE_RANK:-0}"
        --master_addr "${MASTER_ADDR:-127.0.0.1}"
        --master_port "${PORT:-29500}"
    )
fi

exec "${PYTHON:-python}" -m torch.distributed.run "${group[@]}" --nproc_per_node "$processes" \
    "$(dirname "$0")/$tool" "$@" --launcher pytorch
