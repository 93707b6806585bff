#!/usr/bin/env bash
# Purpose:   grounding finetuning: a text -> the box that it describes.
# Needs:     DATA_DIR with DATASET_train.tsv and DATASET_val.tsv, the BPE folder, the pretrained checkpoint.
# Command:   DATASET=refcocog SIZE=base bash run_scripts/refcoco/train.sh [any fairseq flag]
# Batch:     128 texts per update (4 per process; --update-freq follows the number of processes).
# Settings:  DATASET [refcoco] or refcocoplus, refcocog, refcoco_cn; SIZE [large]; LOSS=encouraging for the encouraging loss;
#            TUNING=prefix, adapter, bitfit or lora for parameter-efficient tuning (tuning.sh; 1024 texts per update);
#            DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
DATASET=${DATASET:-refcoco} SIZE=${SIZE:-large} LOSS=${LOSS:-cross_entropy}
case $DATASET in
    refcoco | refcocoplus | refcocog) COLS=0,4,2,3 BPE=gpt2 PRETRAINED=ofa_$SIZE ;;
    refcoco_cn) COLS=0,3,1,2 BPE=bert_cn PRETRAINED=ofa_cn_$SIZE ;;
    *) echo "DATASET expects refcoco, refcocoplus, refcocog or refcoco_cn; found '$DATASET'" >&2; exit 2 ;;
esac
EPOCHS=10
case $SIZE in
    nano | tiny | medium | base) LR=5e-5 DROP=0.1; [ "$DATASET" != refcocog ] || EPOCHS=12 ;;
    large | huge) LR=3e-5 DROP=0.2 ;;
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
case $LOSS in
    cross_entropy) CRITERION=(--criterion=adjust_label_smoothed_cross_entropy) ;;
    encouraging) CRITERION=(--criterion=adjust_label_smoothed_encouraging_loss --log-end=0.75) ;;
    *) echo "LOSS expects cross_entropy or encouraging; found '$LOSS'" >&2; exit 2 ;;
esac
source "$HERE/../tuning.sh"
export RESTORE=${RESTORE:-$ROOT/checkpoints/$PRETRAINED.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/${DATASET}_$SIZE$KIND}
export BATCH=${BATCH:-4} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-128}
DATA_DIR=${DATA_DIR:-$ROOT/dataset/${DATASET}_data}
ofa train "${DATA:-$DATA_DIR/${DATASET}_train.tsv,$DATA_DIR/${DATASET}_val.tsv}" \
    --task=refcoco --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/$BPE}" --selected-cols=$COLS \
    "${CRITERION[@]}" --label-smoothing=0.1 --lr=$LR --max-epoch=$EPOCHS --warmup-ratio=0.06 \
    --encoder-drop-path-rate=$DROP --decoder-drop-path-rate=$DROP \
    --patch-image-size=512 "${FEW[@]}" "${LONG[@]}" --max-src-length=80 --max-tgt-length=20 \
    --eval-acc --eval-args='{"beam":5,"min_len":4,"max_len_a":0,"max_len_b":4}' \
    --best-checkpoint-metric=score --maximize-best-checkpoint-metric --no-epoch-checkpoints --keep-best-checkpoints=1 \
    --save-interval=1 --validate-interval=1 --save-interval-updates=500 --validate-interval-updates=500 "$@"
