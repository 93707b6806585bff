#!/usr/bin/env bash
# Purpose:   caption finetuning, stage 2: CIDEr optimization of samples, from the best checkpoint of stage 1.
# Needs:     DATA_DIR with caption_stage2_train.tsv and caption_val.tsv (captions of an image joined by &&), the BPE folder,
#            stage 1's checkpoint (found by itself where train_stage1.sh or upstream's archive puts it), and the document
#            frequencies CIDER_DF (ofa cider-df build --tsv DATA_DIR/caption_stage2_train.tsv --out CIDER_DF).
# Command:   SIZE=base bash run_scripts/caption/train_stage2.sh [any fairseq flag]
# Batch:     64 images x 5 samples per update (2 images per process; --update-freq follows the number of processes).
# Settings:  SIZE [large]; DATASET [coco] or muge (Chinese); DATA_DIR BPE_DIR CIDER_DF RESTORE SAVE_DIR, and those of ofa train
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
SIZE=${SIZE:-large}
. "$HERE/../captions.sh"
case $SIZE in
    nano | tiny | medium | base | large | huge) ;;  # upstream's scripts for base and large have the same numbers
    *) echo "SIZE expects nano, tiny, medium, base, large or huge; found '$SIZE'" >&2; exit 2 ;;
esac
STAGE1=("$ROOT/runs/${NAME}_stage1_$SIZE/checkpoint_best.pt" "$ROOT/checkpoints/${NAME}_stage1_${SIZE}_best.pt")
[ "$NAME $SIZE" != "caption large" ] || STAGE1+=("$ROOT/checkpoints/caption_stage1_best.pt")  # upstream's name
for checkpoint in "${STAGE1[@]}"; do
    [ -n "${RESTORE:-}" ] || [ ! -f "$checkpoint" ] || {
        RESTORE=$checkpoint
        [ ! -e "$(dirname "$checkpoint")/interrupted" ] || {
            echo "error: stage 1 was interrupted ($(dirname "$checkpoint")/interrupted): finish it by its own command, or start from $checkpoint all the same by RESTORE=$checkpoint" >&2
            exit 2
        }
    }
done
export RESTORE=${RESTORE:-${STAGE1[0]}} SAVE_DIR=${SAVE_DIR:-$ROOT/runs/${NAME}_stage2_$SIZE}
export BATCH=${BATCH:-2} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-64} GPU_PRECISION=${GPU_PRECISION:-memory-efficient-fp16}
echo "stage 2 starts from $RESTORE; batch norm statistics stay as they are (--freeze-resnet)" >&2
ofa train \
    "${DATA:-$DATA_DIR/caption_stage2_train.tsv,$DATA_DIR/caption_val.tsv}" \
    --task=caption --arch="ofa_$SIZE" --bpe-dir="$BPE_DIR" --selected-cols=1,4,2 \
    --criterion=scst_reward_criterion --scst --scst-args="$SEARCH" \
    --scst-cider-cached-tokens="${CIDER_DF:-$DATA_DIR/cider_cached_tokens/coco-train-words.p}" \
    --lr=1e-5 --end-learning-rate=2e-7 --max-epoch=3 --warmup-ratio=0.06 \
    --dropout=0.0 --encoder-drop-path-rate=0.0 --decoder-drop-path-rate=0.0 \
    --freeze-resnet --freeze-encoder-embedding --freeze-decoder-embedding \
    --patch-image-size=480 --max-src-length=80 --max-tgt-length=20 \
    --eval-cider --eval-args="$SEARCH" --best-checkpoint-metric=cider --maximize-best-checkpoint-metric \
    --no-epoch-checkpoints --keep-best-checkpoints=1 \
    --save-interval=1 --validate-interval=1 --save-interval-updates=500 --validate-interval-updates=500 \
    "$@"
