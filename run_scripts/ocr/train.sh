#!/usr/bin/env bash
# Purpose:   finetuning for text recognition: what is written on the image?
#            Chinese as upstream; English by BPE_DIR=bpe/gpt2 RESTORE=checkpoints/ofa_base.pt. Long lines of documents: --is-document.
# Needs:     DATA_DIR with ocr_train.tsv and ocr_val.tsv (ofa prepare ocr), the BPE folder, the pretrained checkpoint.
# Command:   SIZE=base bash run_scripts/ocr/train.sh [any fairseq flag]
# Batch:     128 images per update (8 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large] DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} DATA_DIR=${DATA_DIR:-$ROOT/dataset/ocr_data}
case $SIZE in  # upstream has no such script: the numbers are those of its RefCOCO, lengths those of its OCR evaluation
    nano | tiny | medium | base) LR=5e-5 DROP=0.1 ;;
    large | huge) LR=3e-5 DROP=0.2 ;;
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_cn_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/ocr_$SIZE}
export BATCH=${BATCH:-8} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-128}
ofa train "${DATA:-$DATA_DIR/ocr_train.tsv,$DATA_DIR/ocr_val.tsv}" \
    --task=ocr --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/bert_cn}" --selected-cols=0,1,2 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 --lr=$LR --max-epoch=10 --warmup-ratio=0.06 \
    --encoder-drop-path-rate=$DROP --decoder-drop-path-rate=$DROP \
    --patch-image-size=480 --max-src-length=80 --max-tgt-length=64 \
    --eval-args='{"beam":5,"max_len_b":64,"no_repeat_ngram_size":0}' \
    --best-checkpoint-metric=acc --maximize-best-checkpoint-metric --keep-best-checkpoints=1 --no-epoch-checkpoints \
    --save-interval=1 --validate-interval=1 --save-interval-updates=500 --validate-interval-updates=500 "$@"
