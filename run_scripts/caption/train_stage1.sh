#!/usr/bin/env bash
# Purpose:   caption finetuning, stage 1: cross-entropy on single captions.
# Needs:     DATA_DIR with caption_stage1_train.tsv and caption_val.tsv, the BPE folder, the pretrained checkpoint.
# Command:   SIZE=base bash run_scripts/caption/train_stage1.sh [any fairseq flag]
# Batch:     128 captions per update (8 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large]; DATASET [coco] or muge (Chinese); TUNING=prefix, adapter, bitfit or lora for parameter-efficient tuning
#            (tuning.sh; 1024 captions per update); DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large}
. "$HERE/../captions.sh"
case $SIZE in  # epochs and start of --drop-worst-ratio: upstream's scripts for base and large; their neighbors follow
    tiny | medium | base) EPOCHS=5 DROP_WORST_AFTER=6000 ;;
    large | huge) EPOCHS=2 DROP_WORST_AFTER=2500 ;;
    nano) EPOCHS=20 DROP_WORST_AFTER=6000 ;;
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
source "$HERE/../tuning.sh"
export RESTORE=${RESTORE:-$ROOT/checkpoints/$PRETRAINED.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/${NAME}_stage1_$SIZE$KIND}
FREEZE=(--freeze-encoder-embedding --freeze-decoder-embedding)
[ "$RESTORE" != none ] || FREEZE=()  # random embeddings have to learn
export BATCH=${BATCH:-8} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-128}
ofa train \
    "${DATA:-$DATA_DIR/caption_stage1_train.tsv,$DATA_DIR/caption_val.tsv}" \
    --task=caption --arch="ofa_$SIZE" --bpe-dir="$BPE_DIR" --selected-cols=0,4,2 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 \
    --drop-worst-ratio=0.2 --drop-worst-after=$DROP_WORST_AFTER \
    --lr=1e-5 --max-epoch=$EPOCHS --warmup-ratio=0.06 \
    --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 \
    "${FREEZE[@]}" \
    --patch-image-size=480 "${FEW[@]}" "${LONG[@]}" --max-src-length=80 --max-tgt-length=20 \
    --eval-cider --eval-args="$SEARCH" \
    --best-checkpoint-metric=cider --maximize-best-checkpoint-metric \
    --no-epoch-checkpoints --keep-best-checkpoints=1 \
    --save-interval=1 --validate-interval=1 --save-interval-updates=500 --validate-interval-updates=500 \
    "$@"
