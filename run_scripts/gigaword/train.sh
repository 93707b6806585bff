#!/usr/bin/env bash
# Purpose:   finetuning for summaries: the first sentence of an article -> its headline.
# Needs:     DATA_DIR with gigaword_train.tsv and gigaword_dev.tsv (ofa prepare gigaword), the BPE folder, the pretrained checkpoint.
# Command:   SIZE=base bash run_scripts/gigaword/train.sh [any fairseq flag]
# Batch:     512 texts per update (64 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large] DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} DATA_DIR=${DATA_DIR:-$ROOT/dataset/gigaword_data}
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/gigaword_$SIZE}
export BATCH=${BATCH:-64} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-512}
ofa train "${DATA:-$DATA_DIR/gigaword_train.tsv,$DATA_DIR/gigaword_dev.tsv}" \
    --task=gigaword --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,1 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 --lr=1e-4 --max-epoch=6 --warmup-ratio=0.06 \
    --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 --max-src-length=512 --max-tgt-length=64 --noise-ratio=0.2 \
    --eval-rouge --eval-print-samples --eval-args='{"beam":6,"lenpen":0.7,"max_len_b":32,"no_repeat_ngram_size":3}' \
    --best-checkpoint-metric=rougeL_f1 --maximize-best-checkpoint-metric --no-epoch-checkpoints --keep-best-checkpoints=1 \
    --save-interval=1 --validate-interval=1 --save-interval-updates=2500 --validate-interval-updates=2500 "$@"
