#!/usr/bin/env bash
# Purpose:   entailment by a pretrained checkpoint that was not finetuned for it.
# Needs:     a pretrained checkpoint, the BPE folder, DATA_DIR with snli_ve_SPLIT.tsv.
# Command:   SPLIT=test bash run_scripts/snli_ve/evaluate_zeroshot.sh [any ofa evaluate flag]
# Settings:  SIZE [base]; SPLIT [dev] or test; CHECKPOINT [checkpoints/ofa_SIZE.pt] and those of evaluate.sh
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
export SIZE=${SIZE:-base}
export CHECKPOINT=${CHECKPOINT:-$ROOT/checkpoints/ofa_$SIZE.pt} RESULTS=${RESULTS:-$ROOT/results/snli_ve_${SIZE}_zeroshot}
exec bash "$HERE/evaluate.sh" --zero-shot --prompt-type=prev_output --patch-image-size=384 --max-src-length=80 \
    --batch-size=16 "$@"
