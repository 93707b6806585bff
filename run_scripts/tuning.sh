# Sourced by the training scripts of tasks that offer parameter-efficient tuning: TUNING=prefix, adapter, bitfit or lora.
#
# Sets FEW (flags of the method and its learning rate), LONG (flags of the length), KIND (end of the run's folder), BATCH and
# EFFECTIVE_BATCH: the numbers of upstream's RefCOCO scripts, for every task. All empty with TUNING=full.
# The checkpoints hold the tuned weights alone and name RESTORE as their base; ofa checkpoint merge makes a whole one.
TUNING=${TUNING:-full} FEW=() LONG=() KIND=
case $TUNING in  # upstream's sweep tries the learning rates 0.03, 5e-5 and 1e-4; LoRA is not in upstream
    full) return ;;
    prefix) FEW=(--encoder-prompt --decoder-prompt --encoder-prompt-type=prefix --decoder-prompt-type=prefix
        --encoder-prompt-length=100 --decoder-prompt-length=100 --lr=0.03) ;;
    adapter) FEW=(--adapter --adapter-dim=100 --lr=1e-4) ;;
    bitfit) FEW=(--bitfit --lr=1e-4) ;;
    lora) FEW=(--lora-rank=16 --lora-alpha=32 --lora-targets=q,v --lr=1e-4) ;;
    *) echo "TUNING expects full, prefix, adapter, bitfit or lora; found '$TUNING'" >&2; exit 2 ;;
esac
KIND=_$TUNING FEW+=(--patch-image-size=480) LONG=(--max-epoch=100 --warmup-ratio=0.06)
export BATCH=${BATCH:-16} EFFECTIVE_BATCH=${EFFECTIVE_BATCH:-1024}
