#!/usr/bin/env bash
# Purpose:   classify the images of a file: <split>_predict.json, top-1 and top-5 accuracy, HTML report.
# Needs:     a finetuned checkpoint (default: the best of train.sh), the BPE folder, DATA_DIR with imagenet_1k_SPLIT.tsv and
#            the words of the classes, class2label_new.pkl or class2label.json.
# Command:   SIZE=base bash run_scripts/image_classify/evaluate.sh [any ofa evaluate flag]
# Settings:  SIZE [large]; SPLIT [val] or val_subset, train; MODE [allcand]: score every class, beam: search along them;
#            CLASSES CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} SPLIT=${SPLIT:-val} MODE=${MODE:-allcand} DATA_DIR=${DATA_DIR:-$ROOT/dataset/imagenet_1k_data}
case $SPLIT in
    val | val_subset | train) ;;
    *) echo "SPLIT expects val, val_subset or train; found '$SPLIT'" >&2; exit 2 ;;
esac
case $MODE in
    allcand) HOW=(--val-inference-type=allcand) ;;
    beam) HOW=(--val-inference-type=beamsearch --beam=5 --unnormalized) ;;
    *) echo "MODE expects allcand or beam; found '$MODE'" >&2; exit 2 ;;
esac
[ -n "${CLASSES:-}" ] || [ ! -f "$DATA_DIR/class2label.json" ] || CLASSES=$DATA_DIR/class2label.json
RESULTS=${RESULTS:-$ROOT/results/image_classify_${SIZE}_$MODE}
ofa evaluate "${DATA:-$DATA_DIR/imagenet_1k_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$ROOT/runs/image_classify_$SIZE/checkpoint_best.pt}" \
    --task=image_classify --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,2 \
    --ans2label-file="${CLASSES:-$DATA_DIR/class2label_new.pkl}" "${HOW[@]}" --batch-size=8 --seed=7 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" "$@"
