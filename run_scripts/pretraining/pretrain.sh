#!/usr/bin/env bash
# Purpose:   pretraining on up to eight tasks at once, from an upstream checkpoint or (RESTORE=none) from random weights.
# Needs:     DATA_DIR with vision_language_examples.tsv and, each if there, text_examples.tsv, image_examples.tsv,
#            detection_examples.tsv and negative_sample/ (ofa negatives build); the BPE folder; the checkpoint. A file that is
#            not there leaves its task out, without negative_sample image-text matching.
# Command:   SIZE=base bash run_scripts/pretraining/pretrain.sh [any fairseq flag]
# Batch:     4 rows of pairs per process and update, as upstream (EFFECTIVE_BATCH keeps another number for any number
#            of processes).
# Settings:  SIZE [large]; DATA, several files with commas are read in turn, one per epoch; VALID: a file of pairs to validate
#            on after every epoch (TEXT, IMAGES and DETECTION then name train,valid as well); WEIGHTS: qa=2,detection=0;
#            NEGATIVES TEXT IMAGES DETECTION DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train (several nodes, too)
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} DATA_DIR=${DATA_DIR:-$ROOT/dataset/pretrain_data} WEIGHTS=${WEIGHTS:-}
case $SIZE in  # pixels and patches that a step looks at: upstream's scripts for base and large; others in proportion
    nano | tiny | medium) PIXELS=256 PATCHES=87 ;;
    base | large | huge) PIXELS=384 PATCHES=196 ;;
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
there() { [ -n "${DRY_RUN:-}" ] || [ -e "$DATA_DIR/$1" ]; }
FILES=()
for kind in text:"${TEXT:-}" image:"${IMAGES:-}" detection:"${DETECTION:-}"; do
    name=${kind%%:*} given=${kind#*:}
    [ -n "$given" ] || ! there "${name}_examples.tsv" || given=$DATA_DIR/${name}_examples.tsv
    [ -z "$given" ] || FILES+=("--$name-data=$given")
done
if [ -n "${NEGATIVES:-}" ] || there negative_sample; then
    FILES+=(--neg-sample-dir="${NEGATIVES:-$DATA_DIR/negative_sample}")
else
    WEIGHTS=${WEIGHTS:+$WEIGHTS,}image_text_matching=0
fi
DATA=${DATA:-$DATA_DIR/vision_language_examples.tsv} HOW=(--disable-validation)
[ -z "${VALID:-}" ] || DATA=$DATA,$VALID HOW=(--validate-interval=1 --best-checkpoint-metric=loss --keep-best-checkpoints=1)
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/pretrain_$SIZE} BATCH=${BATCH:-4}
ofa train "$DATA" "${FILES[@]}" ${WEIGHTS:+--task-weights="$WEIGHTS"} \
    --task=unify_task --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,1,2,3,4,5,6,7 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 --clip-norm=5.0 --lr=1e-4 --max-epoch=50 \
    --warmup-ratio=0.01 --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 --fp16-scale-window=128 \
    --patch-image-size=$PIXELS --max-image-size=512 --sample-patch-num=$PATCHES --max-src-length=80 --max-tgt-length=30 \
    "${HOW[@]}" --keep-last-epochs=15 --save-interval=1 --save-interval-updates=6000 "$@"
