#!/usr/bin/env bash
# Purpose:  run all tests (sets up .venv first when it is missing).
# Command:  bash run_scripts/test.sh [pytest arguments]
# Takes:    about 10 minutes on 2 cores after the set-up; no network, no GPU.
# Settings: OFA_BPE_DIR     folder with gpt2/ and bert_cn/ BPE files: tests with the released vocabularies run too
#           OFA_PARITY_DIR  folder with the full golden recordings, read instead of the compact copy
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/run_scripts/errors.sh"
bash "$ROOT/run_scripts/setup.sh" || exit  # it has said why
cd "$ROOT"
cores=$(nproc)
# Whole files go to a process each: the tests of a file share what they have trained.
exec "${OFA_VENV:-$ROOT/.venv}/bin/python" -m pytest tests -n $((cores < 8 ? cores : 8)) --dist loadfile "$@"
