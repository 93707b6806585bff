#!/usr/bin/env bash
# Purpose:   answer the questions of a file: <split>_predict.json for the evaluation server, accuracy, HTML report.
# Needs:     a finetuned checkpoint (default: the best of train.sh), the BPE folder, DATA_DIR with vqa_SPLIT.tsv and the
#            answers of the training, trainval_ans2label.pkl or .json.
# Command:   SIZE=base SPLIT=test MODE=beam bash run_scripts/vqa/evaluate.sh [any ofa evaluate flag]
# Settings:  SIZE [large]; SPLIT [val] or test; MODE [allcand]: score every answer of the set, beam: search along them,
#            unconstrained: generate any text; NO_EMA=1: the last weights, not the averaged ones; ANSWERS CHECKPOINT
#            DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} SPLIT=${SPLIT:-val} MODE=${MODE:-allcand} DATA_DIR=${DATA_DIR:-$ROOT/dataset/vqa_data}
case $SPLIT in
    val | test) ;;
    *) echo "SPLIT expects val or test; found '$SPLIT'" >&2; exit 2 ;;
esac
[ -n "${ANSWERS:-}" ] || [ ! -f "$DATA_DIR/trainval_ans2label.json" ] || ANSWERS=$DATA_DIR/trainval_ans2label.json
SET=(--ans2label-file="${ANSWERS:-$DATA_DIR/trainval_ans2label.pkl}")
SEARCH=(--beam=5 --unnormalized --temperature=1.0 --batch-size=16)
case $MODE in
    allcand) HOW=("${SET[@]}" --val-inference-type=allcand --valid-batch-size=20 --batch-size=8) ;;
    beam) HOW=("${SET[@]}" --beam-search-vqa-eval "${SEARCH[@]}") ;;
    unconstrained) HOW=(--unconstrained-training "${SEARCH[@]}") ;;
    *) echo "MODE expects allcand, beam or unconstrained; found '$MODE'" >&2; exit 2 ;;
esac
EMA=(--ema-eval)
[ -z "${NO_EMA:-}" ] || EMA=()
RESULTS=${RESULTS:-$ROOT/results/vqa_${SIZE}_$MODE}
ofa evaluate "${DATA:-$DATA_DIR/vqa_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/runs/vqa_$SIZE/checkpoint_best.pt}" \
    --task=vqa_gen --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,5,2,3,4 "${HOW[@]}" "${EMA[@]}" \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" --seed=7 "$@"
