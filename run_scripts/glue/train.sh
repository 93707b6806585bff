#!/usr/bin/env bash
# Purpose:   finetuning for a GLUE task.
# Needs:     DATA_DIR with DATASET_train.tsv and DATASET_dev.tsv (mnli: mnli_dev_matched.tsv; ofa prepare glue), the BPE folder,
#            the pretrained checkpoint.
# Command:   DATASET=rte SIZE=base bash run_scripts/glue/train.sh [any fairseq flag]
# Batch:     the middle of upstream's sweep: 64 rows per update for cola, mrpc and rte, 128 for sst2, 256 for the others.
# Settings:  DATASET [cola] or mnli, mrpc, qnli, qqp, rte, sst2; SIZE [large]; LR [6e-5]; EPOCHS [7]; EFFECTIVE_BATCH;
#            SWEEP=1 for the whole upstream sweep, one training after the other, each in a folder of its own;
#            DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
DATASET=${DATASET:-cola} SIZE=${SIZE:-large} LR=${LR:-6e-5} EPOCHS=${EPOCHS:-7} METRIC=acc DEV=dev
case $DATASET in  # columns, rows per process, rows per update (of the sweep; the middle one first), updates between validations
    cola) COLS=1,2 BATCH=${BATCH:-16} ALL=(64 128 32) EVERY=10 METRIC=mcc ;;
    mnli) COLS=0,1,2 BATCH=${BATCH:-8} ALL=(256 128) EVERY=1000 DEV=dev_matched ;;
    mrpc) COLS=0,1,2 BATCH=${BATCH:-16} ALL=(64 128 32) EVERY=10 ;;
    qnli) COLS=1,2,3 BATCH=${BATCH:-8} ALL=(256 128) EVERY=500 ;;
    qqp) COLS=3,4,5 BATCH=${BATCH:-8} ALL=(256 128) EVERY=1000 ;;
    rte) COLS=1,2,3 BATCH=${BATCH:-8} ALL=(64 128 32) EVERY=10 ;;
    sst2) COLS=0,1 BATCH=${BATCH:-16} ALL=(128 64) EVERY=50 ;;
    *) echo "DATASET expects cola, mnli, mrpc, qnli, qqp, rte or sst2; found '$DATASET'" >&2; exit 2 ;;
esac
SAVE_DIR=${SAVE_DIR:-$ROOT/runs/${DATASET}_$SIZE}
if [ -n "${SWEEP:-}" ]; then
    export DATASET SIZE BATCH
    for EPOCHS in 5 7 10; do for LR in 1e-4 7e-5 6e-5 5e-5 3e-5; do for ROWS in "${ALL[@]}"; do
        SWEEP='' EPOCHS=$EPOCHS LR=$LR EFFECTIVE_BATCH=$ROWS SAVE_DIR=$SAVE_DIR/${EPOCHS}_${LR}_$ROWS bash "$HERE/train.sh" "$@"
    done; done; done
    exit
fi
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR BATCH EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-${ALL[0]}}
DATA_DIR=${DATA_DIR:-$ROOT/dataset/glue_data}
ofa train "${DATA:-$DATA_DIR/${DATASET}_train.tsv,$DATA_DIR/${DATASET}_$DEV.tsv}" \
    --task="$DATASET" --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=$COLS \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 --lr="$LR" --max-epoch="$EPOCHS" --warmup-ratio=0.06 \
    --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 --max-src-length=512 --max-tgt-length=30 --prompt-type=src \
    --fp16-init-scale=16 --best-checkpoint-metric=$METRIC --maximize-best-checkpoint-metric --no-epoch-checkpoints \
    --keep-best-checkpoints=1 --keep-interval-updates=1 --save-interval-updates=$EVERY --validate-interval-updates=$EVERY "$@"
