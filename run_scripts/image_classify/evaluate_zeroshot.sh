#!/usr/bin/env bash
# Purpose:   classes by a pretrained checkpoint that was not finetuned for them: which words describe the image best?
# Needs:     a pretrained checkpoint, the BPE folder, DATA_DIR with imagenet_1k_SPLIT.tsv and the words of the classes.
# Command:   SIZE=base bash run_scripts/image_classify/evaluate_zeroshot.sh [any ofa evaluate flag]
# Settings:  CHECKPOINT [checkpoints/ofa_SIZE.pt], and those of evaluate.sh
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
export SIZE=${SIZE:-large}
export CHECKPOINT=${CHECKPOINT:-$ROOT/checkpoints/ofa_$SIZE.pt}
export RESULTS=${RESULTS:-$ROOT/results/image_classify_${SIZE}_zeroshot}
exec bash "$HERE/evaluate.sh" --zero-shot --patch-image-size=480 "$@"
