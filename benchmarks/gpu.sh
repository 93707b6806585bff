#!/usr/bin/env bash
# Purpose:  what this machine's GPU reaches in training, captioning, drawing and reading, as a table with upper bounds and
#           goals; under ten minutes.
# Needs:    one NVIDIA GPU; 40 GB of its memory for all lines.
# Command:  bash benchmarks/gpu.sh [FOLDER]           flags of benchmarks/gpu.py may follow; FOLDER is runs/gpu otherwise
# Makes:    FOLDER/gpu.md and FOLDER/gpu.json, with chip and date.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/run_scripts/errors.sh"
OUT=$ROOT/runs/gpu
case ${1:-} in "" | -*) ;; *) OUT=$1; shift ;; esac
[ -n "${OFA_VENV:-}" ] || bash "$ROOT/run_scripts/setup.sh" || exit
mkdir -p "$OUT"
"${OFA_VENV:-$ROOT/.venv}/bin/python" "$ROOT/benchmarks/gpu.py" --markdown "$OUT/gpu.md" --json "$OUT/gpu.json" "$@"
echo "$OUT/gpu.md"
