#!/usr/bin/env bash
# Purpose:   score a text recognition checkpoint: <split>_predict.json, accuracy, edit distance, HTML report.
# Needs:     a finetuned checkpoint (default: the best of train.sh), the BPE folder, DATA_DIR with ocr_SPLIT.tsv.
# Command:   SIZE=base SPLIT=test bash run_scripts/ocr/evaluate.sh [any ofa evaluate flag, such as --is-document]
# Settings:  SIZE [large] SPLIT [test] CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} SPLIT=${SPLIT:-test}
RESULTS=${RESULTS:-$ROOT/results/ocr_$SIZE}
case $SIZE in
    large | huge) ROWS=8 ;;
    *) ROWS=16 ;;
esac
ofa evaluate "${DATA:-${DATA_DIR:-$ROOT/dataset/ocr_data}/ocr_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/runs/ocr_$SIZE/checkpoint_best.pt}" \
    --task=ocr --bpe-dir="${BPE_DIR:-$ROOT/bpe/bert_cn}" --selected-cols=0,1,2 --batch-size=$ROWS --seed=7 \
    --beam=5 --max-len-b=64 --no-repeat-ngram-size=0 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" "$@"
