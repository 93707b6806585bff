#!/usr/bin/env bash
# Purpose:   finetuning for ImageNet: the words of an image's class.
# Needs:     DATA_DIR with imagenet_1k_train.tsv, imagenet_1k_val_subset.tsv (or imagenet_1k_val.tsv) and the words of the
#            classes, class2label_new.pkl or class2label.json, the BPE folder, the pretrained checkpoint.
# Command:   SIZE=base bash run_scripts/image_classify/train.sh [any fairseq flag]
# Batch:     256 images per update (4 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large] CLASSES (file of the words) DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} DATA_DIR=${DATA_DIR:-$ROOT/dataset/imagenet_1k_data}
case $SIZE in
    nano | tiny | medium | base | large | huge) ;;  # upstream for large only
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
[ -n "${CLASSES:-}" ] || [ ! -f "$DATA_DIR/class2label.json" ] || CLASSES=$DATA_DIR/class2label.json
VALID=$DATA_DIR/imagenet_1k_val_subset.tsv
[ -f "$VALID" ] || VALID=$DATA_DIR/imagenet_1k_val.tsv
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/image_classify_$SIZE}
FREEZE=(--freeze-encoder-embedding --freeze-decoder-embedding)
[ "$RESTORE" != none ] || FREEZE=()  # random embeddings have to learn
export BATCH=${BATCH:-4} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-256}
ofa train "${DATA:-$DATA_DIR/imagenet_1k_train.tsv,$VALID}" \
    --task=image_classify --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,2 \
    --ans2label-file="${CLASSES:-$DATA_DIR/class2label_new.pkl}" --valid-batch-size=20 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 \
    --lr=5e-5 --max-update=160000 --total-num-update=160000 --warmup-updates=1000 \
    --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 "${FREEZE[@]}" \
    --patch-image-size=480 --imagenet-default-mean-and-std --max-src-length=128 --max-tgt-length=30 \
    --best-checkpoint-metric=score --maximize-best-checkpoint-metric --keep-best-checkpoints=1 --keep-last-epochs=15 \
    --save-interval=1 --validate-interval=1 "$@"
