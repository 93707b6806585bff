#!/usr/bin/env bash
# Purpose:   text to image, stage 1: a caption -> the codes of its image, learned by cross-entropy.
# Needs:     DATA_DIR with coco_vqgan_train.tsv and coco_vqgan_dev.tsv (id, codes, caption; ofa tokenizer encode makes codes), the BPE
#            folder, the pretrained checkpoint; to validate by CLIP its weights and the tokenizer (CLIP=none: by the loss).
# Command:   SIZE=base bash run_scripts/image_gen/train_stage1.sh [any fairseq flag]
# Batch:     512 captions per update (4 per process; --update-freq follows the number of processes).
# Settings:  SIZE [large] PIXELS [256] RANGE [50265,58457: the token ids of codes; "" with another vocabulary]
#            TOKENIZER [checkpoints/vqgan, a folder with model.yaml and last.ckpt, or a tokenizer.pt] CLIP [checkpoints/clip/ViT-B-16.pt]
#            DATA_DIR BPE_DIR RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} PIXELS=${PIXELS:-256} RANGE=${RANGE-50265,58457} CLIP=${CLIP:-$ROOT/checkpoints/clip/ViT-B-16.pt}
DATA_DIR=${DATA_DIR:-$ROOT/dataset/coco_image_gen_data}
case $SIZE in
    nano | tiny | medium | base | large | huge) ;;  # upstream for large only
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
if [ "$CLIP" = none ]; then
    VALIDATION=(--best-checkpoint-metric=loss)
else
    VALIDATION=(--image-tokenizer="${TOKENIZER:-$ROOT/checkpoints/vqgan}" --clip-model-path="$CLIP"
        --best-checkpoint-metric=score --maximize-best-checkpoint-metric)
fi
[ -z "$RANGE" ] || VALIDATION+=(--constraint-range="$RANGE")
CODES=$((PIXELS * PIXELS / 64))
export RESTORE=${RESTORE:-$ROOT/checkpoints/ofa_$SIZE.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/image_gen_stage1_$SIZE}
export BATCH=${BATCH:-4} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-512}
ofa train "${DATA:-$DATA_DIR/coco_vqgan_train.tsv,$DATA_DIR/coco_vqgan_dev.tsv}" \
    --task=image_gen --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,2,1 \
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 \
    --lr=1e-3 --max-update=40000 --warmup-updates=2000 --total-num-update=40000 \
    --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 --fp16-scale-window=256 \
    --code-image-size="$PIXELS" --max-src-length=64 --max-tgt-length="$CODES" --batch-size-valid=1 "${VALIDATION[@]}" \
    --eval-args="{\"beam\":24,\"min_len\":$CODES,\"max_len_a\":0,\"max_len_b\":$CODES,\"sampling_topk\":256,\"temperature\":1.0}" \
    --no-epoch-checkpoints --keep-best-checkpoints=1 --save-interval=3 --validate-interval=3 "$@"
