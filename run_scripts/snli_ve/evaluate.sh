#!/usr/bin/env bash
# Purpose:   score an entailment checkpoint: <split>_predict.json, accuracy, HTML report.
# Needs:     a finetuned checkpoint (default: the best of train.sh), the BPE folder, DATA_DIR with snli_ve_SPLIT.tsv.
# Command:   SIZE=base SPLIT=test bash run_scripts/snli_ve/evaluate.sh [any ofa evaluate flag]
# Settings:  SIZE [large]; SPLIT [dev] or test; CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} SPLIT=${SPLIT:-dev}
case $SPLIT in
    dev | test) ;;
    *) echo "SPLIT expects dev or test; found '$SPLIT'" >&2; exit 2 ;;
esac
RESULTS=${RESULTS:-$ROOT/results/snli_ve_$SIZE}
ofa evaluate "${DATA:-${DATA_DIR:-$ROOT/dataset/snli_ve_data}/snli_ve_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/runs/snli_ve_$SIZE/checkpoint_best.pt}" \
    --task=snli_ve --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,2,3,4,5 --batch-size=8 --seed=7 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" "$@"
