#!/usr/bin/env bash
# Purpose:  check format, lint and types (sets up .venv first when it is missing); changes nothing.
# Command:  bash run_scripts/lint.sh
# Takes:    half a minute, seconds when little changed since.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/run_scripts/errors.sh"
bash "$ROOT/run_scripts/setup.sh" || exit  # it has said why
cd "$ROOT"
BIN=${OFA_VENV:-$ROOT/.venv}/bin
"$BIN/ruff" format --check --quiet . || { echo "error: format: expects what '$BIN/ruff format' makes of the files" >&2; "$BIN/ruff" format --check .; exit 1; }
"$BIN/ruff" check --quiet --output-format concise .
# mypy reads the folders where a wheel puts them: models/ is ofa.models.
LAYOUT=build/types
rm -rf "$LAYOUT" && mkdir -p "$LAYOUT/ofa"
ln -s "$ROOT"/ofa/* "$ROOT"/{models,data,criterions,tasks} "$LAYOUT/ofa"
MYPYPATH=$LAYOUT "$BIN/mypy" --python-executable "$BIN/python" -p ofa
