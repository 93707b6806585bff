#!/usr/bin/env bash
# Purpose:   finetuning for visual question answering, among a set of answers.
# Needs:     DATA_DIR with vqa_train.tsv, vqa_val.tsv and the answers, trainval_ans2label.pkl or .json (ofa answers build),
#            the BPE folder, the pretrained checkpoint.
# Command:   SIZE=base bash run_scripts/vqa/train.sh [any fairseq flag]
# Batch:     512 questions per update (4 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large]; ANSWERS, none: any text is learned and generated; TUNING=prefix, adapter, bitfit or lora for parameter-efficient
#            tuning (tuning.sh; 1024 questions per update, as many updates); DATA_DIR BPE_DIR RESTORE SAVE_DIR, and
#            those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} DATA_DIR=${DATA_DIR:-$ROOT/dataset/vqa_data}
case $SIZE in  # length: upstream's scripts for base and large; their neighbors follow
    nano | tiny | medium | base) LENGTH=(--max-epoch=15 --warmup-ratio=0.04) DROP=0.1 ;;
    large | huge) LENGTH=(--max-update=40000 --total-num-update=40000 --warmup-updates=1000) DROP=0.2 ;;
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
source "$HERE/../tuning.sh"
[ -n "${ANSWERS:-}" ] || [ ! -f "$DATA_DIR/trainval_ans2label.json" ] || ANSWERS=$DATA_DIR/trainval_ans2label.json
SET=(--ans2label-file="${ANSWERS:-$DATA_DIR/trainval_ans2label.pkl}" --val-inference-type=allcand)
[ "${ANSWERS:-}" != none ] || SET=(--unconstrained-training --val-inference-type=beamsearch)
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/vqa_$SIZE$KIND}
FREEZE=(--freeze-encoder-embedding --freeze-decoder-embedding)
[ "$RESTORE" != none ] || FREEZE=()  # random embeddings have to learn
export BATCH=${BATCH:-4} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-512}
ofa train "${DATA:-$DATA_DIR/vqa_train.tsv,$DATA_DIR/vqa_val.tsv}" \
    --task=vqa_gen --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,5,2,3,4 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 --lr=5e-5 "${LENGTH[@]}" \
    --encoder-drop-path-rate=$DROP --decoder-drop-path-rate=$DROP "${FREEZE[@]}" "${SET[@]}" \
    --patch-image-size=480 "${FEW[@]}" --max-src-length=80 --max-tgt-length=30 --max-object-length=30 \
    --add-object --prompt-type=prev_output --valid-batch-size=20 \
    --store-ema --uses-ema --ema-fp32 --ema-decay=0.9999 --ema-start-update=0 \
    --best-checkpoint-metric=vqa_score --maximize-best-checkpoint-metric --keep-best-checkpoints=1 --keep-last-epochs=15 \
    --save-interval=1 --validate-interval=1 "$@"
