# Sourced first by the scripts: "sh SCRIPT" runs in bash, HERE and ROOT are set, settings that no script reads are refused,
# and "ofa" is the command of this environment, which is set up if need be ("ofa train" sets OFA_EXECUTABLE).
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
HERE=$(cd "$(dirname "${BASH_SOURCE[1]:-$0}")" && pwd)
CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ROOT=${OFA_ROOT:-$CHECKOUT}
. "$CHECKOUT/run_scripts/errors.sh"
# Settings that no script reads but people set, and what is meant; no others, which may be a cluster's own.
for meant in {LR,lr,LEARNING_RATE,learning_rate}=--lr {MAX_EPOCH,max_epoch,EPOCHS,NUM_EPOCHS,num_epochs}=--max-epoch \
    {BATCH_SIZE,batch_size,batch}=BATCH {UPDATE_FREQ,update_freq}=--update-freq {PATCH_IMAGE_SIZE,patch_image_size}=--patch-image-size \
    data_dir=DATA_DIR save_dir=SAVE_DIR bpe_dir=BPE_DIR restore=RESTORE size=SIZE; do
    name=${meant%%=*}
    [ -z "${!name:-}" ] || grep -q "\${$name:-" "$0" || {
        echo "${0##*/}: error: expects settings that it reads (--help lists them), found $name=${!name}; write ${meant#*=}=${!name}" >&2
        exit 2
    }
done

TELL=${OFA_TELL:-}  # "ofa train RECIPE" waits on this file descriptor for command and settings, and is not started again
unset OFA_TELL

ofa() {
    local python=${OFA_EXECUTABLE:-${OFA_VENV:-$CHECKOUT/.venv}/bin/python}
    [ -n "${OFA_EXECUTABLE:-}${DRY_RUN:-}" ] || bash "$CHECKOUT/run_scripts/setup.sh" || exit  # it has said why
    [ -x "$python" ] || python=python3  # a dry run before the set-up
    [ ! -f "$CHECKOUT/setup.py" ] || export PYTHONPATH="$CHECKOUT${PYTHONPATH:+:$PYTHONPATH}"
    export OFA_RECIPE=1 NPROC=${NPROC:-${GPUS_PER_NODE:-0}}
    [ -n "$TELL" ] || exec "$python" -m ofa "$@"
    { printf '%s\0' "$#" "$@" && env -0; } >&"$TELL"
    exit
}
