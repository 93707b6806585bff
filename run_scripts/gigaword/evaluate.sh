#!/usr/bin/env bash
# Purpose:   score a checkpoint for summaries: <split>_predict.json, ROUGE-1, ROUGE-2 and ROUGE-L, HTML report.
# Needs:     a finetuned checkpoint (default: the best of train.sh), the BPE folder, DATA_DIR with gigaword_SPLIT.tsv.
# Command:   SIZE=base bash run_scripts/gigaword/evaluate.sh [any ofa evaluate flag]
# Settings:  SIZE [large]; SPLIT [test] or dev; CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} SPLIT=${SPLIT:-test}
case $SPLIT in
    dev | test) ;;
    *) echo "SPLIT expects dev or test; found '$SPLIT'" >&2; exit 2 ;;
esac
RESULTS=${RESULTS:-$ROOT/results/gigaword_$SIZE}
ofa evaluate "${DATA:-${DATA_DIR:-$ROOT/dataset/gigaword_data}/gigaword_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/runs/gigaword_$SIZE/checkpoint_best.pt}" \
    --task=gigaword --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,1 --batch-size=32 --seed=7 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" \
    --beam=6 --lenpen=0.7 --max-len-b=32 --no-repeat-ngram-size=3 "$@"
