#!/usr/bin/env bash
# Purpose:   text to image, stage 2: sampled images that fit their caption better than the others become more probable.
# Needs:     as train_stage1.sh, its checkpoint (or RESTORE), the tokenizer, and CLIP or another scorer.
# Command:   SIZE=base bash run_scripts/image_gen/train_stage2.sh [any fairseq flag]
# Batch:     32 captions x 5 images per update (1 caption per process; --update-freq follows the number of processes).
# Settings:  as train_stage1.sh; SCORER=MODULE:CLASS takes the place of CLIP
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} PIXELS=${PIXELS:-256} RANGE=${RANGE-50265,58457}
DATA_DIR=${DATA_DIR:-$ROOT/dataset/coco_image_gen_data}
case $SIZE in
    nano | tiny | medium | base | large | huge) ;;  # upstream for large only
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
JUDGE=(--clip-model-path="${CLIP:-$ROOT/checkpoints/clip/ViT-B-16.pt}")
[ -z "${SCORER:-}" ] || JUDGE=(--image-text-scorer="$SCORER")
[ -z "$RANGE" ] || JUDGE+=(--constraint-range="$RANGE")
CODES=$((PIXELS * PIXELS / 64))
DRAW="\"min_len\":$CODES,\"max_len_a\":0,\"max_len_b\":$CODES,\"sampling_topk\":256,\"temperature\":1.0"
export RESTORE=${RESTORE:-$ROOT/runs/image_gen_stage1_$SIZE/checkpoint_last.pt} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/image_gen_stage2_$SIZE}
export BATCH=${BATCH:-1} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-32}
ofa train "${DATA:-$DATA_DIR/coco_vqgan_train.tsv,$DATA_DIR/coco_vqgan_dev.tsv}" \
    --task=image_gen --arch="ofa_$SIZE" --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,2,1 \
    --criterion=clip_scst_reward_criterion --scst --scst-args="{\"beam\":5,$DRAW}" \
    --image-tokenizer="${TOKENIZER:-$ROOT/checkpoints/vqgan}" "${JUDGE[@]}" \
    --lr=1e-6 --max-update=5000 --warmup-updates=0 --total-num-update=5000 \
    --dropout=0.0 --encoder-drop-path-rate=0.0 --decoder-drop-path-rate=0.0 --freeze-resnet --fp16-scale-window=256 \
    --code-image-size="$PIXELS" --max-src-length=64 --max-tgt-length="$CODES" --batch-size-valid=1 \
    --eval-args="{\"beam\":24,$DRAW}" --best-checkpoint-metric=score --maximize-best-checkpoint-metric \
    --no-epoch-checkpoints --keep-best-checkpoints=1 --save-interval-updates=200 --validate-interval-updates=200 "$@"
