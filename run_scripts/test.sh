#!/usr/bin/env bash
# Purpose:  check format, lint and types, then run all tests, or the fast ones (sets up .venv first
#           when it is missing).
# Command:  bash run_scripts/test.sh [--fast] [pytest arguments]
# Takes:    on 2 cores after the set-up 15 to 22 minutes by the machine, with --fast 4 to 7; no network, no GPU.
# Settings: OFA_BPE_DIR     folder with bert_cn/ (and gpt2/) BPE files: tests with the Chinese vocabulary run too
#           OFA_PARITY_DIR  folder with the full golden recordings, read instead of the compact copy
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/run_scripts/errors.sh"
bash "$ROOT/run_scripts/setup.sh" || exit  # it has said why
cd "$ROOT"
TIER=()
[ "${1:-}" != --fast ] || { TIER=(-m fast) && shift; }
bash "$ROOT/run_scripts/lint.sh"
cores=$(nproc)
# Whole files go to a process each: the tests of a file share what they have trained.
exec "${OFA_VENV:-$ROOT/.venv}/bin/python" -m pytest tests -n $((cores < 8 ? cores : 8)) --dist loadfile "${TIER[@]}" "$@"
