#!/usr/bin/env bash
# Purpose:   finetuning on a task that is one line, such as "[image] how many [text:thing] are there? -> [text:count]".
# Needs:     DATA_DIR with template_train.tsv, template_val.tsv and, for a [label], its labels class2label.json
#            (ofa prepare csv TABLE --task LINE), the BPE folder, the pretrained checkpoint.
# Command:   TASK="[image] how many [text:thing] are there? -> [text:count]" SIZE=base bash run_scripts/template/train.sh
# Batch:     64 rows per update (8 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large]; TASK [any question about an image]; LABELS, a file of the answers; DATA_DIR BPE_DIR RESTORE
#            SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} DATA_DIR=${DATA_DIR:-$ROOT/dataset/template_data}
LABELS=${LABELS:-$DATA_DIR/class2label.json} SET=()
[ ! -f "$LABELS" ] || SET=(--ans2label-file="$LABELS")
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/template_$SIZE}
export BATCH=${BATCH:-8} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-64}
ofa train "${DATA:-$DATA_DIR/template_train.tsv,$DATA_DIR/template_val.tsv}" \
    --task="${TASK:-[image] [text:question] -> [text:answer]}" --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 --lr=5e-5 --max-epoch=10 --warmup-ratio=0.06 \
    --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 --patch-image-size=480 "${SET[@]}" \
    --max-src-length=80 --max-tgt-length=30 \
    --best-checkpoint-metric=score --maximize-best-checkpoint-metric --keep-best-checkpoints=1 --keep-last-epochs=1 "$@"
