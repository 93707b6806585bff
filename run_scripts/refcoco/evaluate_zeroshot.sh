#!/usr/bin/env bash
# Purpose:   grounding by a pretrained checkpoint that was not finetuned for it: boxes, accuracy, HTML report.
# Needs:     a pretrained checkpoint, the BPE folder, DATA_DIR with DATASET_SPLIT.tsv.
# Command:   DATASET=refcocog SPLIT=test bash run_scripts/refcoco/evaluate_zeroshot.sh [any ofa evaluate flag]
# Settings:  as evaluate.sh; CHECKPOINT [checkpoints/ofa_SIZE.pt]
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} NAME=ofa
[ "${DATASET:-refcoco}" != refcoco_cn ] || NAME=ofa_cn
export CHECKPOINT=${CHECKPOINT:-$ROOT/checkpoints/${NAME}_$SIZE.pt}
export RESULTS=${RESULTS:-$ROOT/results/${DATASET:-refcoco}_${SIZE}_zeroshot}
exec bash "$HERE/evaluate.sh" --zero-shot --patch-image-size=480 "$@"
