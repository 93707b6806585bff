#!/usr/bin/env bash
# Purpose:   score a checkpoint of a GLUE task, or answer its test rows for a submission (ofa submit glue).
# Needs:     a finetuned checkpoint (default: the best of train.sh), the BPE folder, DATA_DIR with DATASET_SPLIT.tsv.
# Command:   DATASET=rte SIZE=base SPLIT=test bash run_scripts/glue/evaluate.sh [any ofa evaluate flag]
# Settings:  DATASET [cola] or mnli, mrpc, qnli, qqp, rte, sst2; SIZE [large]; SPLIT [dev; mnli: dev_matched] or test, of mnli also
#            dev_mismatched, test_matched, test_mismatched; CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
DATASET=${DATASET:-cola} SIZE=${SIZE:-large} SPLITS="dev test"
case $DATASET in
    cola) COLS=1,2 ;;
    mnli) COLS=0,1,2 SPLITS="dev_matched dev_mismatched test_matched test_mismatched" ;;
    mrpc) COLS=0,1,2 ;;
    qnli | rte) COLS=1,2,3 ;;
    qqp) COLS=3,4,5 ;;
    sst2) COLS=0,1 ;;
    *) echo "DATASET expects cola, mnli, mrpc, qnli, qqp, rte or sst2; found '$DATASET'" >&2; exit 2 ;;
esac
SPLIT=${SPLIT:-${SPLITS%% *}}
[[ " $SPLITS " == *" $SPLIT "* ]] || { echo "SPLIT expects one of $SPLITS; found '$SPLIT'" >&2; exit 2; }
RESULTS=${RESULTS:-$ROOT/results/${DATASET}_$SIZE}
ofa evaluate "${DATA:-${DATA_DIR:-$ROOT/dataset/glue_data}/${DATASET}_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/runs/${DATASET}_$SIZE/checkpoint_best.pt}" \
    --task="$DATASET" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=$COLS --batch-size=16 --seed=7 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" "$@"
