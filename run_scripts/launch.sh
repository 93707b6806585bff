#!/usr/bin/env bash
# The one file that knows torchrun, fairseq, paths and dry runs. Experiments call it:
#
#   bash launch.sh train    DATA [fairseq-train flags]    flags common to all OFA recipes are added
#   bash launch.sh evaluate DATA [ofa evaluate flags]
#
# Settings (environment):
#   SAVE_DIR         where checkpoints and the first node's train.log go       [runs/last]
#   RESTORE          checkpoint to start from; "none" = from random weights    [none]
#   BATCH            sentences per process and step                            [8]
#   EFFECTIVE_BATCH  sentences per update over all processes; --update-freq is raised to keep it [BATCH]
#   PRECISION        fp16 | bf16 | amp | memory-efficient-fp16 | fp32          [GPU_PRECISION on GPUs, fp32 on CPU]
#   GPU_PRECISION    what an experiment prefers on GPUs                        [fp16]
#   NPROC            processes on this node                                    [number of GPUs, or 1]
#   NNODES NODE_RANK MASTER_ADDR MASTER_PORT   several nodes (SLURM's variables are read as well)
#   FRESH=1          (or --fresh) start over although SAVE_DIR holds a run: it is moved aside, never deleted, and not while it runs
#   DRY_RUN=1        print the command and stop
#
# Running the same command again resumes from SAVE_DIR/checkpoint_last.pt, or from the newest checkpoint that can be
# read. Ctrl-C and SIGTERM save after the update that is being made; then SAVE_DIR/interrupted exists.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/run_scripts/errors.sh"
PYTHON=${OFA_VENV:-$ROOT/.venv}/bin/python

fail() { printf 'launch: error: %s\n' "$*" >&2; exit 2; }

# A dry run asks nvidia-smi, which is quick. A real one asks torch (2 s) unless nothing speaks of a GPU, and ends here with
# one line where this build of torch cannot use one.
count_gpus() {
    local python=$PYTHON question=check
    GPUS=0
    ! given --cpu "$@" || return 0
    [ -z "${DRY_RUN:-}" ] || question=count
    [ -x "$python" ] || python=python3  # a dry run before the set-up
    GPUS=$(PYTHONSAFEPATH=1 PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "$python" -m ofa.devices "$question") || exit 2
}

given() {  # given FLAG ARGS...: is --flag (or --flag=...) among the arguments?
    local flag=$1 argument
    shift
    for argument in "$@"; do
        [[ $argument == "$flag" || $argument == "$flag="* ]] && return 0
    done
    return 1
}

value_of() {  # value_of FLAG ARGS...: the last value given for --flag
    local flag=$1 value= previous= argument
    shift
    for argument in "$@"; do
        [[ $previous == "$flag" ]] && value=$argument
        [[ $argument == "$flag="* ]] && value=${argument#*=}
        previous=$argument
    done
    printf '%s' "$value"
}

find_processes() {
    count_gpus "$@"
    NPROC=${NPROC:-$((GPUS > 0 ? GPUS : 1))}
    NNODES=${NNODES:-${SLURM_NNODES:-1}}
    NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-0}}
    if [ -z "${MASTER_ADDR:-}" ]; then
        MASTER_ADDR=127.0.0.1
        if [ "$NNODES" -gt 1 ]; then
            command -v scontrol >/dev/null || fail "NNODES=$NNODES expects MASTER_ADDR (the first node's address); set MASTER_ADDR and NODE_RANK"
            MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
            MASTER_ADDR=${MASTER_ADDR%%$'\n'*}
        fi
    fi
    # all nodes have to choose the same port; on one node two runs must not
    if [ "$NNODES" -gt 1 ]; then
        MASTER_PORT=${MASTER_PORT:-$((10000 + ${SLURM_JOB_ID:-0} % 20000))}
    fi
    MASTER_PORT=${MASTER_PORT:-$((10000 + $$ % 20000))}
    PROCESSES=$((NPROC * NNODES))
}

run_module() {  # run_module LOG MODULE ARGS...: in this process, or under torchrun when there are several; LOG may be ""
    local log=$1 command=("$PYTHON" -m)
    shift
    if [ "$PROCESSES" -gt 1 ]; then
        command+=(torch.distributed.run --nnodes "$NNODES" --node_rank "$NODE_RANK" --nproc_per_node "$NPROC"
            --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" -m)
    fi
    command+=("$@")
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "${command[@]}"
        echo
        return
    fi
    export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
    [ -z "$log" ] || exec > >(exec tee -ai "$log") 2>&1
    [ "$PROCESSES" -gt 1 ] || exec "${command[@]}"  # signals reach the training itself
    run_torchrun
}

# torchrun answers a signal by ending all processes within 30 seconds and failing. Here it never sees one: the processes
# themselves are asked to stop, and torchrun ends when they have.
run_torchrun() {
    local status
    trap 'pkill -TERM -P "$torchrun" || true' INT TERM
    OFA_RUN_LOG=$log OFA_LAUNCHER_PID=$$ setsid "${command[@]/#torch.distributed.run/ofa.cli.torchrun}" &  # the same, with failures in one line
    torchrun=$!
    while true; do  # a signal ends "wait" early
        status=0
        wait "$torchrun" || status=$?
        kill -0 "$torchrun" 2>/dev/null || break
    done
    # By programs: if this shell opened its own lock file, closing it would give up the lock.
    if [ "${OFA_FOLDER_OWNER:-}" = $$ ] && [ "$(cut -d ' ' -f 2 "$SAVE_DIR/run.lock" 2>/dev/null)" = $$ ]; then
        rm -f "$SAVE_DIR/run.lock"
    fi
    exit "$status"  # torchrun has said why
}

require_count() {  # require_count NAME VALUE: arithmetic would take other words for variables, and 08 for octal
    [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || fail "$1 expects an integer of at least 1, found '$2'"
}

# What can be refused is refused before the set-up, and before anything is moved or written.
check_settings() {
    local name
    for name in BATCH EFFECTIVE_BATCH NPROC NNODES MASTER_PORT; do
        [ -z "${!name:-}" ] || require_count "$name" "${!name}"
    done
    [[ ${NODE_RANK:-0} =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "NODE_RANK expects an integer of at least 0, found '$NODE_RANK'"
    ! given --batch-size "$@" || require_count --batch-size "$(value_of --batch-size "$@")"
    case ${PRECISION:-${GPU_PRECISION:-fp32}} in
        fp32 | fp16 | memory-efficient-fp16 | bf16 | amp) ;;
        *) fail "PRECISION expects fp32, fp16, memory-efficient-fp16, bf16 or amp; found '${PRECISION:-$GPU_PRECISION}'" ;;
    esac
    [ "$COMMAND" = train ] && [ "${RESTORE:-none}" != none ] && ! given --restore-file "$@" || return 0
    [ -n "${DRY_RUN:-}" ] || [ -f "$RESTORE" ] || fail "RESTORE expects a checkpoint, found no file $RESTORE. Put it there, name another (RESTORE=path), or train from random weights (RESTORE=none)"
}

precision_flags() {  # sets PRECISION_FLAGS
    local precision=${PRECISION:-}
    [ -n "$precision" ] || { [ "$GPUS" -gt 0 ] && precision=${GPU_PRECISION:-fp16} || precision=fp32; }
    case $precision in
        fp32) PRECISION_FLAGS=() ;;
        *fp16) PRECISION_FLAGS=("--$precision" --fp16-scale-window=512) ;;
        *) PRECISION_FLAGS=("--$precision") ;;
    esac
}

# On a CPU, memory that one step frees is kept for the next instead of going back to the system, which has to clear every
# page before it gives it out again: that takes a fifth of a pretraining step (benchmarks/README.md).
keep_freed_memory() {
    export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296}
}

COMMON=(--user-dir="$ROOT/ofa"
    --encoder-normalize-before --decoder-normalize-before
    --share-decoder-input-output-embed --share-all-embeddings
    --layernorm-embedding --patch-layernorm-embedding --code-layernorm-embedding
    --add-type-embedding --scale-attn --scale-fc --scale-heads --disable-entangle
    --optimizer=adam --adam-betas='(0.9,0.999)' --adam-eps=1e-08 --weight-decay=0.01 --clip-norm=1.0
    --lr-scheduler=polynomial_decay --dropout=0.1 --attention-dropout=0.0 --resnet-drop-path-rate=0.0
    --num-bins=1000 --find-unused-parameters --log-format=simple --log-interval=10 --fixed-validation-seed=7)

train() {
    local data=$1 batch=${BATCH:-8} flags=()
    shift
    SAVE_DIR=${SAVE_DIR:-$ROOT/runs/last}
    given --batch-size "$@" && batch=$(value_of --batch-size "$@") || flags+=(--batch-size="$batch")
    if ! given --update-freq "$@"; then
        local step=$((batch * PROCESSES))
        flags+=(--update-freq=$(((${EFFECTIVE_BATCH:-$batch} + step - 1) / step)))
    fi
    if [ "${RESTORE:-none}" != none ] && ! given --restore-file "$@"; then
        flags+=(--finetune-from-model="$RESTORE")
    fi
    [ "$GPUS" -gt 0 ] || given --cpu "$@" || flags+=(--cpu)
    [ "$PROCESSES" -eq 1 ] || flags+=(--distributed-world-size="$PROCESSES")
    given --num-workers "$@" || flags+=(--num-workers="${NUM_WORKERS:-2}")
    precision_flags
    flags+=("${PRECISION_FLAGS[@]}" --save-dir="$SAVE_DIR" --tensorboard-logdir="$SAVE_DIR/tensorboard")
    [ -n "${DRY_RUN:-}" ] || [ "$GPUS" -gt 0 ] || keep_freed_memory
    if [ -n "${DRY_RUN:-}" ] || [ "$NODE_RANK" -gt 0 ]; then  # nodes share the disk: the first one owns the folder and logs
        run_module "" fairseq_cli.train "$data" "${COMMON[@]}" "${flags[@]}" "$@"
        return
    fi
    if [ "${OFA_FOLDER_OWNER:-}" != $$ ]; then
        export OFA_FOLDER_OWNER=$$ PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
        exec "$PYTHON" -m ofa.cli.with_folder_lock ${FRESH:+--fresh} "$SAVE_DIR" bash "${BASH_SOURCE[0]}" train "$data" "$@"
    fi
    run_module "$SAVE_DIR/train.log" fairseq_cli.train "$data" "${COMMON[@]}" "${flags[@]}" "$@"
}

# fairseq knows tasks by name alone: a task in one line becomes the options of the task 'template'.
name_template() {  # name_template ARGS...: sets ARGUMENTS
    local task
    ARGUMENTS=()
    while [ $# -gt 0 ]; do
        if [ "$1" = --task ] && [ $# -gt 1 ]; then
            task=--task=$2
            shift
        else
            task=$1
        fi
        shift
        case $task in
            --task=*[][]* | --task=*'->'*) ARGUMENTS+=(--task=template --template="${task#--task=}") ;;
            *) ARGUMENTS+=("$task") ;;
        esac
    done
}

evaluate() {
    local flags=()
    [ "$GPUS" -gt 0 ] || given --cpu "$@" || flags+=(--cpu)
    run_module "" ofa evaluate "$@" "${flags[@]}"
}

[ $# -ge 2 ] || fail "usage: launch.sh train|evaluate DATA [flags]"
COMMAND=$1
shift
if given --fresh "$@"; then
    FRESH=1
    for argument in "$@"; do
        shift
        [ "$argument" = --fresh ] || set -- "$@" "$argument"
    done
fi
case $COMMAND in
    train | evaluate) ;;
    *) fail "expects 'train' or 'evaluate', found '$COMMAND'" ;;
esac
[ "$COMMAND" = evaluate ] || { name_template "$@"; set -- "${ARGUMENTS[@]}"; }
check_settings "$@"
[ -n "${DRY_RUN:-}" ] || [ "${OFA_FOLDER_OWNER:-}" = $$ ] || bash "$ROOT/run_scripts/setup.sh" || exit  # it has said why
find_processes "$@"
"$COMMAND" "$@"
