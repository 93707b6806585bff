#!/usr/bin/env bash
# Purpose:   answer questions with a pretrained checkpoint that was not finetuned for them: any text is generated.
# Needs:     a pretrained checkpoint, the BPE folder, DATA_DIR with vqa_SPLIT.tsv.
# Command:   SIZE=base bash run_scripts/vqa/evaluate_zeroshot.sh [any ofa evaluate flag]
# Settings:  SIZE [large] SPLIT [val] CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} SPLIT=${SPLIT:-val}
case $SPLIT in
    val | test) ;;
    *) echo "SPLIT expects val or test; found '$SPLIT'" >&2; exit 2 ;;
esac
RESULTS=${RESULTS:-$ROOT/results/vqa_${SIZE}_zeroshot}
ofa evaluate "${DATA:-${DATA_DIR:-$ROOT/dataset/vqa_data}/vqa_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/checkpoints/ofa_$SIZE.pt}" --task=vqa_gen --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" \
    --selected-cols=0,5,2,3,4 --zero-shot --prompt-type=none --unconstrained-training --patch-image-size=480 \
    --max-src-length=80 --max-tgt-length=30 --beam=20 --unnormalized --batch-size=8 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" --seed=7 "$@"
