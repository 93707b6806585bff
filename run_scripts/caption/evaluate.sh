#!/usr/bin/env bash
# Purpose:   score a caption checkpoint: <subset>_predict.json, COCO scores, HTML report.
# Needs:     a finetuned checkpoint (default: the best of stage 2, else of stage 1), the BPE folder, DATA_DIR with
#            caption_test.tsv (captions of one image joined by &&).
# Command:   SIZE=base bash run_scripts/caption/evaluate.sh [any ofa evaluate flag]
# Settings:  SIZE [large]; DATASET [coco] or muge (Chinese); SPLIT [test] CHECKPOINT DATA_DIR BPE_DIR
#            RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large}
SPLIT=${SPLIT:-test}
. "$HERE/../captions.sh"
RESULTS=${RESULTS:-$ROOT/results/${NAME}_$SIZE}
BEST=$ROOT/runs/${NAME}_stage2_$SIZE/checkpoint_best.pt
[ -f "$BEST" ] || BEST=$ROOT/runs/${NAME}_stage1_$SIZE/checkpoint_best.pt
case $DATASET,$SIZE in
    muge,*) SEARCH=(--beam=8 --max-len-b=128 --no-repeat-ngram-size=3) ;;
    *,huge) SEARCH=(--beam=10 --max-len-b=16 --temperature=0.98 --lenpen=0.98 --no-repeat-ngram-size=3) ;;
    *) SEARCH=(--beam=5 --max-len-b=16 --no-repeat-ngram-size=3) ;;
esac
ofa evaluate "${DATA:-$DATA_DIR/caption_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$BEST}" \
    --task=caption --bpe-dir="$BPE_DIR" --selected-cols=1,4,2 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" \
    --batch-size=16 --seed=7 "${SEARCH[@]}" "$@"
