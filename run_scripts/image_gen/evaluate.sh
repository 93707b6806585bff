#!/usr/bin/env bash
# Purpose:   draw the captions of a file: images, <split>_predict.json, how well they fit by CLIP, FID and Inception score, HTML report.
# Needs:     a checkpoint (default: the best of stage 2, else the last of stage 1), the BPE folder, DATA_DIR with coco_vqgan_SPLIT.tsv,
#            the tokenizer, CLIP; for FID and Inception score INCEPTION (pt_inception-2015-12-05-6726825d.pth) and REAL.
# Command:   SIZE=base bash run_scripts/image_gen/evaluate.sh [any ofa evaluate flag]
# Settings:  SIZE [large] SPLIT [full_test] or dev; TOKENIZER CLIP (none: the likeliest image first) PIXELS RANGE as train_stage1.sh;
#            IMAGES [RESULTS/images] INCEPTION REAL [gt_stat.npz, a folder; default: the images of the rows' codes]
#            CHECKPOINT DATA_DIR BPE_DIR RESULTS, and those of ofa evaluate
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large} SPLIT=${SPLIT:-full_test} PIXELS=${PIXELS:-256} RANGE=${RANGE-50265,58457} CLIP=${CLIP:-$ROOT/checkpoints/clip/ViT-B-16.pt}
case $SPLIT in
    full_test | dev) ;;
    *) echo "SPLIT expects full_test or dev; found '$SPLIT'" >&2; exit 2 ;;
esac
RESULTS=${RESULTS:-$ROOT/results/image_gen_$SIZE}
BEST=$ROOT/runs/image_gen_stage2_$SIZE/checkpoint_best.pt
[ -f "$BEST" ] || BEST=$ROOT/runs/image_gen_stage1_$SIZE/checkpoint_last.pt
MORE=()
[ "$CLIP" = none ] || MORE+=(--clip-model-path="$CLIP")
[ -z "$RANGE" ] || MORE+=(--constraint-range="$RANGE")
[ -z "${INCEPTION:-}" ] || MORE+=(--inception-model-path="$INCEPTION")
[ -z "${REAL:-}" ] || MORE+=(--real-images="$REAL")
CODES=$((PIXELS * PIXELS / 64))
ofa evaluate "${DATA:-${DATA_DIR:-$ROOT/dataset/coco_image_gen_data}/coco_vqgan_$SPLIT.tsv}" \
    --path="${CHECKPOINT:-$BEST}" --task=image_gen --bpe-dir="${BPE_DIR:-$ROOT/bpe/gpt2}" --selected-cols=0,2,1 \
    --gen-subset="$SPLIT" --results-path="$RESULTS" --report="$RESULTS/$SPLIT.html" --batch-size=1 --seed=42 \
    --image-tokenizer="${TOKENIZER:-$ROOT/checkpoints/vqgan}" --gen-images-path="${IMAGES:-${PICTURES:-$RESULTS/images}}" "${MORE[@]}" \
    --code-image-size="$PIXELS" --beam=24 --min-len=$CODES --max-len-a=0 --max-len-b=$CODES --sampling-topk=256 "$@"
