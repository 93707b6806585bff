#!/usr/bin/env bash
# Purpose:   finetuning for visual entailment: does the image (and its caption) imply a sentence?
# Needs:     DATA_DIR with snli_ve_train.tsv and snli_ve_dev.tsv, the BPE folder, the pretrained checkpoint.
# Command:   SIZE=base bash run_scripts/snli_ve/train.sh [any fairseq flag]
# Batch:     256 sentences per update (4 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large]; TUNING=prefix, adapter, bitfit or lora for parameter-efficient tuning (tuning.sh; 1024 sentences per
#            update); DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} DATA_DIR=${DATA_DIR:-$ROOT/dataset/snli_ve_data}
case $SIZE in  # upstream's scripts for base and large; their neighbors follow
    nano | tiny | medium | base) LR=5e-5 EPOCHS=5 DROP=0.1 ;;
    large | huge) LR=2e-5 EPOCHS=6 DROP=0.2 ;;
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
source "$HERE/../tuning.sh"
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/snli_ve_$SIZE$KIND}
export BATCH=${BATCH:-4} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-256}
ofa train "${DATA:-$DATA_DIR/snli_ve_train.tsv,$DATA_DIR/snli_ve_dev.tsv}" \
    --task=snli_ve --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,2,3,4,5 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 --lr=$LR --max-epoch=$EPOCHS --warmup-ratio=0.06 \
    --encoder-drop-path-rate=$DROP --decoder-drop-path-rate=$DROP \
    --patch-image-size=480 "${FEW[@]}" "${LONG[@]}" --max-src-length=80 --max-tgt-length=20 --add-caption --prompt-type=prev_output \
    --best-checkpoint-metric=snli_score --maximize-best-checkpoint-metric --keep-best-checkpoints=1 \
    --save-interval=1 --validate-interval=1 --save-interval-updates=500 --validate-interval-updates=500 "$@"
