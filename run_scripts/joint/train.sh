#!/usr/bin/env bash
# Purpose:   finetuning of one model on several tasks at once, which a JSON file or --mixture names (docs/data.md).
# Needs:     DATA, the JSON file, or --mixture "caption=TRAIN.tsv,VAL.tsv*0.5, refcoco=TRAIN.tsv,VAL.tsv"; the BPE folder,
#            the pretrained checkpoint.
# Command:   DATA=joint.json SIZE=base bash run_scripts/joint/train.sh [any fairseq flag]
# Batch:     64 rows per update, of any task (8 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large]; DATA BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large}
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/joint_$SIZE}
export BATCH=${BATCH:-8} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-64}
ofa train "${DATA:-}" \
    --task=joint --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 --lr=5e-5 --max-epoch=10 --warmup-ratio=0.06 \
    --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 --patch-image-size=480 --max-src-length=80 --max-tgt-length=30 \
    --keep-best-checkpoints=1 --keep-last-epochs=1 "$@"
