#!/usr/bin/env bash
# Purpose:  watch OFA learn to caption images, answer questions about them and point at what is meant, from nothing to a
#           scored page, on an ordinary computer.
# Needs:    two processor cores, 4 GB of memory, 1 GB of disk (and once 6 GB for the Python environment).
# Command:  bash run_scripts/quickstart.sh            at most 13 minutes on 2 cores after the set-up
#           bash run_scripts/quickstart.sh --long     at most 40 minutes, better at everything
#           --fresh starts over. The same call again continues an interrupted run, or finishes at once.
# Makes:    runs/quickstart/report.html (--long: runs/quickstart_long/...); QUICKSTART_DIR chooses another folder.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/.." && pwd)
. "$HERE/errors.sh"
PYTHON=${OFA_VENV:-$ROOT/.venv}/bin/python

SEARCH='{"beam":3,"max_len_b":30}'
NAME=quickstart SCENES=10000 UPDATES=720 MINUTES=3.9 UPDATES2=60 MINUTES2=0.9 UPDATES3=1350 MINUTES3=6.4 PIXELS=64 FRESH_RUN=
for argument in "$@"; do
    case $argument in
        --long) NAME=quickstart_long SCENES=20000 UPDATES=2400 MINUTES=13 UPDATES2=150 MINUTES2=3 UPDATES3=4000 MINUTES3=19.5 ;;
        --fresh) FRESH_RUN=1 ;;
        -h | --help) sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "quickstart: error: expects --long or --fresh, found '$argument'" >&2; exit 2 ;;
    esac
done
SCENES=${QUICKSTART_SCENES:-$SCENES} UPDATES=${QUICKSTART_UPDATES:-$UPDATES} MINUTES=${QUICKSTART_MINUTES:-$MINUTES}
UPDATES2=${QUICKSTART_UPDATES2:-$UPDATES2} MINUTES2=${QUICKSTART_MINUTES2:-$MINUTES2}
UPDATES3=${QUICKSTART_UPDATES3:-$UPDATES3} MINUTES3=${QUICKSTART_MINUTES3:-$MINUTES3} TEST=${QUICKSTART_TEST_SCENES:-300}
SEED=${QUICKSTART_SEED:-1}  # of the weights and the order of the training rows
ACTS=${QUICKSTART_ACTS:-3}  # 2: captions alone
RUN=${QUICKSTART_DIR:-$ROOT/runs/$NAME}
WORLD=$RUN/world VOCAB=$RUN/vocab STAGE1=$RUN/stage1 STAGE2=$RUN/stage2 JOINT=$RUN/joint
RESULTS=$RUN/results PAGES=$RUN/pages REPORT=$RUN/report.html
TITLE="OFA from nothing, in minutes"
CORES=$(nproc)  # asked for once: nproc obeys OMP_NUM_THREADS, which trainings set
SETTINGS="scenes $SCENES, test $TEST, updates $UPDATES, $UPDATES2 and $UPDATES3, $PIXELS px, seed $SEED, version 9"
LABEL=quickstart
. "$HERE/stages.sh"

make_world() { ofa prepare synthetic-shapes --out "$WORLD" --train "$SCENES" --val 100 --test "$TEST" --size "$PIXELS"; }

make_vocabulary() {  # the prompts are learned as well as the captions, so that they cost a few tokens only
    yes "what does the image describe?" | head -n "$SCENES" >"$RUN/prompts.txt" || true
    sed 's/.*/which region does the text " & " describe?/' "$WORLD/expressions.txt" >>"$RUN/prompts.txt"
    ofa vocab build --text "$WORLD/captions.txt" "$WORLD/questions.txt" "$RUN/prompts.txt" --size 600 --out "$VOCAB" --force
}

train() {  # train FOLDER IMAGES FLAGS...: ofa_nano with that many images per process and update
    local folder=$1 batch=$2
    shift 2
    # Two processes of one thread each beat two threads of one process when the machine has other work to do.
    export OMP_NUM_THREADS=1 NPROC=$((CORES < 2 ? 1 : 2)) BATCH=$batch
    # Few codes and bins (an upstream model has 8192 and 1000): a bin is two pixels here, and soon known; the softmax is cheap.
    SAVE_DIR=$folder EFFECTIVE_BATCH=$((2 * BATCH)) NUM_WORKERS=0 bash "$HERE/launch.sh" train "$@" \
        --arch=ofa_nano --bpe-dir="$VOCAB" --cpu --dropout=0.0 --adam-betas='(0.9,0.98)' \
        --code-dict-size=64 --num-bins=32 --code-image-size=64 --image-bucket-size=8 --token-bucket-size=32 \
        --patch-image-size="$PIXELS" --max-src-length=20 --max-tgt-length=20 \
        --maximize-best-checkpoint-metric --no-epoch-checkpoints --keep-best-checkpoints=1 --batch-size-valid=50 --seed="$SEED"
    stop_if_interrupted "$folder"
}

CAPTIONS=(--task=caption --eval-cider --eval-args="$SEARCH" --best-checkpoint-metric=cider)

train_stage1() {  # cross-entropy: each caption of each scene is a sample
    train "$STAGE1" "${QUICKSTART_BATCH:-32}" "$WORLD/caption_stage1_train.tsv,$WORLD/caption_val.tsv" --selected-cols=0,4,2 \
        "${CAPTIONS[@]}" --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 --lr=1e-3 --warmup-ratio=0.05 \
        --max-update="$UPDATES" --total-num-update="$UPDATES" --stop-time-hours="$(hours "$MINUTES")" \
        --save-interval-updates=$((UPDATES / 3 + 1)) --validate-interval-updates=$((UPDATES / 3 + 1))
}

train_stage2() {  # CIDEr optimization: the model's own captions, those that score better than the others are reinforced
    ofa cider-df build --tsv "$WORLD/caption_stage2_train.tsv" --out "$RUN/cider_df.p"
    RESTORE=$STAGE1/checkpoint_last.pt train "$STAGE2" "${QUICKSTART_BATCH:-16}" \
        "$WORLD/caption_stage2_train.tsv,$WORLD/caption_val.tsv" --selected-cols=1,4,2 \
        "${CAPTIONS[@]}" --criterion=scst_reward_criterion --scst --scst-args="$SEARCH" --scst-cider-cached-tokens="$RUN/cider_df.p" \
        --freeze-resnet --lr=5e-5 --warmup-ratio=0.1 \
        --max-update="$UPDATES2" --total-num-update="$UPDATES2" --stop-time-hours="$(hours "$MINUTES2")" \
        --save-interval-updates="$UPDATES2" --validate-interval-updates="$UPDATES2"
}

# Questions, boxes and captions in one model, from the captions of stage 1. The weights are how often each row of a file is
# shown in an epoch, which takes about as long as the training: of 100 samples 55 are questions, 38 boxes and 7 captions.
train_joint() {
    cat >"$RUN/joint.json" <<JSON
{"caption": {"data": "world/caption_stage1_train.tsv,world/caption_val.tsv", "selected_cols": "0,4,2", "weight": 0.13,
             "eval_cider": true, "eval_args": $SEARCH},
 "vqa_gen": {"data": "world/vqa_train.tsv,world/vqa_val.tsv", "ans2label_file": "world/ans2label.json", "weight": 1.6,
             "prompt_type": "none"},
 "refcoco": {"data": "world/refcoco_train.tsv,world/refcoco_val.tsv", "max_image_size": $PIXELS, "weight": 1.65,
             "eval_acc": true}}
JSON
    RESTORE=$STAGE1/checkpoint_last.pt train "$JOINT" "${QUICKSTART_BATCH:-32}" "$RUN/joint.json" \
        --task=joint --best-checkpoint-metric=vqa_score \
        --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 --lr=1e-3 --warmup-ratio=0.05 \
        --max-update="$UPDATES3" --total-num-update="$UPDATES3" --stop-time-hours="$(hours "$MINUTES3")" \
        --save-interval-updates=$((UPDATES3 / 3 + 1)) --validate-interval-updates=$((UPDATES3 / 3 + 1))
}

evaluate() {  # evaluate NAME FILE FOLDER FLAGS...: predict for the unseen scenes
    local name=$1 file=$2 folder=$3
    shift 3
    ofa evaluate "$WORLD/$file" --path "$folder/checkpoint_last.pt" --bpe-dir "$VOCAB" --cpu --gen-subset "$name" \
        --batch-size 50 --results-path "$RESULTS" --report-images 300 "$@"
}

caption() {  # caption NAME FOLDER FLAGS...
    local name=$1 folder=$2
    shift 2
    evaluate "$name" caption_test.tsv "$folder" --beam 3 --max-len-b 30 --scores CIDEr,BLEU-1,BLEU-2,BLEU-3,BLEU-4,ROUGE-L "$@"
}

evaluate_stage1() { caption stage1 "$STAGE1"; }

evaluate_stage2() {
    caption test "$STAGE2" --compare "stage 1=$RESULTS/stage1_scores.json" --constant-from "$WORLD/captions.txt" \
        --report "$PAGES/captions.html" --report-title "OFA has learned to describe images it never saw" \
        --training-log "$STAGE1/train.log" --timings "$RUN/timings.tsv" | tee "$RUN/summary.txt"
    ofa merge-reports "captions=$PAGES/captions.html" --title "$TITLE" --out "$REPORT"  # to look at while the third act is learned
}

evaluate_joint() {
    {
        echo "captions by the model that also answers and points"
        caption joint "$JOINT" --task caption --compare "stage 1=$RESULTS/stage1_scores.json"
        printf '\nquestions\n'
        evaluate questions vqa_test.tsv "$JOINT" --task vqa_gen --constant-from "$WORLD/answers.txt" \
            --report "$PAGES/questions.html" --report-title "Questions about images it never saw" --training-log "$JOINT/train.log"
        printf '\nboxes (score: the part that overlaps the true box by half)\n'
        evaluate boxes refcoco_test.tsv "$JOINT" --task refcoco --beam 3 --constant-from "$WORLD/boxes.txt" \
            --report "$PAGES/boxes.html" --report-title "What is meant, in images it never saw" --timings "$RUN/timings.tsv"
    } | tee "$RUN/summary_joint.txt"
    ofa merge-reports "captions=$PAGES/captions.html" "questions=$PAGES/questions.html" "boxes=$PAGES/boxes.html" --title "$TITLE" \
        --out "$REPORT"
}

summary() {
    say "done"
    cat "$RUN/summary.txt"
    [ ! -e "$RUN/summary_joint.txt" ] || { echo && cat "$RUN/summary_joint.txt"; }
    print_timings
    printf '\nOpen %s in a browser.\n' "$REPORT"
}

bash "$HERE/setup.sh" || exit  # it has said why
own_folder "${BASH_SOURCE[0]}" "$@"
start_over_if_asked "$SETTINGS" "$FRESH_RUN" "$WORLD" "$VOCAB" "$STAGE1" "$STAGE2" "$JOINT" "$RESULTS" "$PAGES" "$REPORT"
stage "1 draw synthetic shapes" make_world
stage "2 learn a vocabulary" make_vocabulary
stage "3 train ofa_nano on captions" train_stage1
stage "4 caption unseen scenes" evaluate_stage1
stage "5 train it for CIDEr" train_stage2
stage "6 caption them again and score" evaluate_stage2
if [ "$ACTS" -ge 3 ]; then
    stage "7 train it for questions and boxes too" train_joint
    stage "8 answer, point, caption and score" evaluate_joint
fi
summary
