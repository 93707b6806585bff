#!/usr/bin/env bash
# Purpose:   score a grounding checkpoint: <split>_predict.json with boxes, accuracy at an overlap of 0.5, HTML report.
# Needs:     a finetuned checkpoint (default: the best of train.sh), the BPE folder, DATA_DIR with DATASET_SPLIT.tsv.
# Command:   DATASET=refcocog SIZE=base SPLIT=test bash run_scripts/refcoco/evaluate.sh [any ofa evaluate flag]
# Settings:  DATASET [refcoco] or refcocoplus, refcocog, refcoco_cn; SIZE [large]; SPLIT [val] or testA, testB (refcocog:
#            test); CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
DATASET=${DATASET:-refcoco} SIZE=${SIZE:-large} SPLIT=${SPLIT:-val}
case $DATASET in
    refcoco | refcocoplus) SPLITS="val testA testB" COLS=0,4,2,3 BPE=gpt2 ;;
    refcocog) SPLITS="val test" COLS=0,4,2,3 BPE=gpt2 ;;
    refcoco_cn) SPLITS="val testA testB" COLS=0,3,1,2 BPE=bert_cn ;;
    *) echo "DATASET expects refcoco, refcocoplus, refcocog or refcoco_cn; found '$DATASET'" >&2; exit 2 ;;
esac
[[ " $SPLITS " == *" $SPLIT "* ]] || { echo "SPLIT expects one of $SPLITS for $DATASET; found '$SPLIT'" >&2; exit 2; }
RESULTS=${RESULTS:-$ROOT/results/${DATASET}_$SIZE}
ofa evaluate "${DATA:-${DATA_DIR:-$ROOT/dataset/${DATASET}_data}/${DATASET}_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/runs/${DATASET}_$SIZE/checkpoint_best.pt}" \
    --task=refcoco --bpe-dir="${BPE_DIR:-$ROOT/bpe/$BPE}" --selected-cols=$COLS \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" --batch-size=16 --seed=7 \
    --beam=5 --min-len=4 --max-len-a=0 --max-len-b=4 --no-repeat-ngram-size=3 "$@"
