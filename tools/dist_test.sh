#!/usr/bin/env bash
# Test in several processes: dist_test.sh CONFIG CHECKPOINT PROCESSES [OPTIONS OF test.py...]
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [OPTIONS OF test.py...]" >&2
    exit 2
fi
exec "$(dirname "$0")/dist.sh" test.py "$3" "$1" "$2" "${@:4}"
