#!/usr/bin/env bash
# Train in several processes, one per GPU: dist_train.sh CONFIG PROCESSES [OPTIONS OF train.py...]
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [OPTIONS OF train.py...]" >&2
    exit 2
fi
exec "$(dirname "$0")/dist.sh" train.py "$2" "$1" "${@:3}"
