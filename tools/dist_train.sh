#!/usr/bin/env bash
# Train in several processes, one per GPU: dist_train.sh CONFIG PROCESSES [OPTIONS OF train.py...]
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [OPTIONS OF train.py...]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2
exec "${PYTHON:-python}" "$(dirname "$0")/launch.py" "$processes" train.py "$config" "$@"
