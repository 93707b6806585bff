#!/usr/bin/env bash
# Purpose:  watch OFA being pretrained: eight tasks in one stream, then drawing, on an ordinary computer.
# Needs:    two processor cores, 4 GB of memory, 2 GB of disk (and once 6 GB for the Python environment).
# Command:  bash run_scripts/pretraining/demo.sh     75 to 110 minutes on 2 cores after the set-up; the pretraining itself at most
#           30 minutes. --fresh starts over. The same call again continues an interrupted run, or finishes at once.
# Makes:    runs/pretraining_demo/report.html; DEMO_DIR chooses another folder.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
. "$HERE/../errors.sh"
PYTHON=${OFA_VENV:-$ROOT/.venv}/bin/python

FRESH_RUN=
for argument in "$@"; do
    case $argument in
        --fresh) FRESH_RUN=1 ;;
        -h | --help) sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "demo: error: expects --fresh, found '$argument'" >&2; exit 2 ;;
    esac
done
PIXELS=64 CODES=${DEMO_CODES:-1024} SCENES=${DEMO_SCENES:-16000} TEST=${DEMO_TEST_SCENES:-300} SEED=${DEMO_SEED:-1}
TOKENIZER_MINUTES=${DEMO_TOKENIZER_MINUTES:-6} TOKENIZER_UPDATES=${DEMO_TOKENIZER_UPDATES:-}
UPDATES=${DEMO_UPDATES:-2600} MINUTES=${DEMO_MINUTES:-29} BATCH=${DEMO_BATCH:-16}                  # the eight tasks
DRAWINGS=${DEMO_DRAWINGS:-24000} DRAW_UPDATES=${DEMO_DRAW_UPDATES:-4500} DRAW_MINUTES=${DEMO_DRAW_MINUTES:-45}  # text to image: further scenes
GAIN_UPDATES=${DEMO_GAIN_UPDATES:-150}                                                             # each finetuning; 0: none
RUN=${DEMO_DIR:-$ROOT/runs/pretraining_demo}
WORLD=$RUN/world VOCAB=$RUN/vocab TOKENIZER=$RUN/tokenizer PRETRAINED=$RUN/pretrained DRAWING=$RUN/drawing GAIN=$RUN/gain
RESULTS=$RUN/results PAGES=$RUN/pages REPORT=$RUN/report.html
CORES=$(nproc)  # asked for once: nproc obeys OMP_NUM_THREADS, which trainings set
SETTINGS="scenes $SCENES and $DRAWINGS, test $TEST, codes $CODES, tokenizer ${TOKENIZER_UPDATES:-$TOKENIZER_MINUTES min}, \
updates $UPDATES, $DRAW_UPDATES and $GAIN_UPDATES, $PIXELS px, seed $SEED, version 2"
LABEL=demo
. "$HERE/../stages.sh"

world() { ofa prepare synthetic-shapes --out "$WORLD" --train "$SCENES" --val 100 --test "$TEST" --size "$PIXELS" --pretrain "$@"; }

make_vocabulary() {  # the prompts are learned as well as the texts, so that they cost a few tokens only
    {
        yes "what does the image describe? what are the objects in the image? what is the image in the middle part?" | head -n "$SCENES"
        yes "what is the complete image? caption: what does the region describe? region: yes no" | head -n "$SCENES"
        sed 's/.*/which region does the text " & " describe?/' "$WORLD/expressions.txt"
        sed 's/.*/does the image describe " & "?/' "$WORLD/captions.txt"
        sed 's/.*/what is the answer to question " & ". is " "?/' "$WORLD/questions.txt"
        cut -f2 "$WORLD/text_examples.tsv" | sed 's/.*/what is the complete text of " & "?/'
    } >"$RUN/prompts.txt" || true
    ofa vocab build --text "$WORLD/captions.txt" "$WORLD/questions.txt" "$RUN/prompts.txt" --size 600 --out "$VOCAB" --force
}

train_tokenizer() {
    OMP_NUM_THREADS=${DEMO_TOKENIZER_THREADS:-$CORES} ofa tokenizer train --images "$WORLD/caption_stage2_train.tsv" --out "$TOKENIZER" --size "$PIXELS" --codes "$CODES" \
        --minutes "$TOKENIZER_MINUTES" ${TOKENIZER_UPDATES:+--updates "$TOKENIZER_UPDATES"}
}

encode() { world --tokenizer "$TOKENIZER" --drawings "$DRAWINGS"; }

build_negatives() {
    ofa negatives build --data "$WORLD/vision_language_examples.tsv" --detection "$WORLD/detection_examples.tsv" --out "$WORLD/negative_sample"
}

train() {  # train FOLDER ROWS DATA FLAGS...: ofa_nano with that many rows per process and update
    local folder=$1 batch=$2
    shift 2
    # Two processes of one thread each beat two threads of one process when the machine has other work to do.
    export OMP_NUM_THREADS=1 NPROC=$((CORES < 2 ? 1 : 2)) BATCH=$batch
    SAVE_DIR=$folder EFFECTIVE_BATCH=$((2 * BATCH)) NUM_WORKERS=0 bash "$HERE/../launch.sh" train "$@" \
        --arch=ofa_nano --bpe-dir="$VOCAB" --cpu --dropout=0.0 --adam-betas='(0.9,0.98)' \
        --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 --warmup-ratio=0.05 \
        --code-dict-size="$CODES" --num-bins=32 --image-bucket-size=8 --token-bucket-size=32 --patch-image-size="$PIXELS" \
        --maximize-best-checkpoint-metric --no-epoch-checkpoints --keep-best-checkpoints=1 --batch-size-valid=50 --seed="$SEED"
    stop_if_interrupted "$folder"
}

# Weights: matching, whose answers are one token long, and the rare auxiliary rows more often than in upstream, what is soon learned less often.
pretrain() {
    train "$PRETRAINED" "$BATCH" "$WORLD/vision_language_examples.tsv,$WORLD/vision_language_val.tsv" --task=unify_task \
        --text-data="$WORLD/text_examples.tsv,$WORLD/text_val.tsv" --image-data="$WORLD/image_examples.tsv,$WORLD/image_val.tsv" \
        --detection-data="$WORLD/detection_examples.tsv,$WORLD/detection_val.tsv" --neg-sample-dir="$WORLD/negative_sample" \
        --task-weights="${DEMO_WEIGHTS:-image_text_matching=1.4,grounded_captioning=0.6,text_infilling=0.6,image_infilling=2,detection=3}" \
        --max-image-size="$PIXELS" --max-resize="$PIXELS" --plain-images --code-image-size=$((PIXELS / 2)) --max-src-length=40 --max-tgt-length=30 \
        --lr="${DEMO_LR:-1e-3}" --max-update="$UPDATES" --total-num-update="$UPDATES" --stop-time-hours="$(hours "$MINUTES")" \
        --best-checkpoint-metric=caption_acc --save-interval-updates=$((UPDATES / 6 + 1)) --validate-interval-updates=$((UPDATES / 6 + 1))
}


score_pretrained() {  # on unseen scenes, beside the best answer that looks at nothing
    ofa pretraining score "$PRETRAINED/checkpoint_last.pt" --data "$WORLD/vision_language_test.tsv" --text-data "$WORLD/text_test.tsv" \
        --image-data "$WORLD/image_test.tsv" --detection-data "$WORLD/detection_test.tsv" --neg-sample-dir "$WORLD/negative_sample" \
        --bpe-dir "$VOCAB" --cpu --image-tokenizer "$TOKENIZER/tokenizer.pt" --out "$RESULTS/pretraining_scores.json" --report "$PAGES/tasks.html" \
        --report-title "Eight tasks on images it never saw" --training-log "$PRETRAINED/train.log" | tee "$RUN/summary_tasks.txt"
}

SAMPLING='{"beam":1,"sampling_topp":0.9}'

train_drawing() {
    RESTORE=$PRETRAINED/checkpoint_last.pt train "$DRAWING" "${DEMO_DRAW_BATCH:-32}" "$WORLD/image_gen_train.tsv,$WORLD/image_gen_val.tsv" \
        --task=image_gen --selected-cols=0,2,1 --code-image-size="$PIXELS" --max-src-length=60 --max-tgt-length=20 \
        --image-tokenizer="$TOKENIZER/tokenizer.pt" --image-text-scorer=ofa.synthetic.shapes_oracle:SyntheticShapesScorer \
        --eval-args="$SAMPLING" --best-checkpoint-metric=score --lr="${DEMO_DRAW_LR:-1.5e-3}" \
        --max-update="$DRAW_UPDATES" --total-num-update="$DRAW_UPDATES" --stop-time-hours="$(hours "$DRAW_MINUTES")" \
        --save-interval-updates=$((DRAW_UPDATES / 6 + 1)) --validate-interval-updates=$((DRAW_UPDATES / 6 + 1))
}

draw() {  # one drawing of each unseen caption, as it comes; then the best of eight, chosen by the checker
    local samples name
    for samples in 1 8; do
        name=drawings_$samples
        cut -f3 "$WORLD/image_gen_test.tsv" >"$RUN/captions_to_draw.txt"
        ofa draw "$DRAWING/checkpoint_last.pt" --texts "$RUN/captions_to_draw.txt" --out "$RESULTS/$name" --samples "$samples" --cpu \
            --bpe-dir "$VOCAB" --batch-size 25 --image-tokenizer "$TOKENIZER/tokenizer.pt" --sampling-topp 0.9 \
            --image-text-scorer ofa.synthetic.shapes_oracle:SyntheticShapesScorer
    done
    {
        echo "drawings, one of each caption"
        ofa synthetic-shapes check "$RESULTS/drawings_1/draw_predict.json" --out "$RESULTS/drawings_1.json"
        echo "the best of eight by the checker"
        ofa synthetic-shapes check "$RESULTS/drawings_8/draw_predict.json" --out "$RESULTS/drawings_8.json"
    } | tee "$RUN/summary_drawings.txt"
    ofa evaluate "$WORLD/image_gen_test.tsv" --path "$DRAWING/checkpoint_last.pt" --bpe-dir "$VOCAB" --cpu --gen-subset drawings --batch-size 25 \
        --beam 4 --sampling-topp 0.9 --results-path "$RESULTS" --gen-images-path "$RESULTS/images" \
        --report "$PAGES/drawings.html" --report-images 60 --report-title "Drawings of captions it never saw" --training-log "$DRAWING/train.log"
}

measure_gain() {  # one seed; benchmarks/pretraining_gain.py alone takes three
    "$PYTHON" "$ROOT/benchmarks/pretraining_gain.py" --demo "$RUN" --folder "$GAIN" --seeds "$SEED" --updates "$GAIN_UPDATES" --codes "$CODES" \
        ${DEMO_GAIN_BATCH:+--batch "$DEMO_GAIN_BATCH"} --out "$RESULTS/gain.json" | tee "$RUN/summary_gain.txt"
}

summary() {
    ofa pretraining summary --scores "$RESULTS/pretraining_scores.json" --timings "$RUN/timings.tsv" --drawings \
        "one of each caption=$RESULTS/drawings_1.json" "best of eight, chosen by the checker=$RESULTS/drawings_8.json" \
        --images "$RESULTS/drawings_8/draw_predict.json" ${GAIN_FILE:+--gain "$GAIN_FILE"} \
        --title "OFA, pretrained in half an hour" --out "$PAGES/summary.html"
    ofa merge-reports "summary=$PAGES/summary.html" "eight tasks=$PAGES/tasks.html" "drawings=$PAGES/drawings.html" --title "OFA, pretrained in half an hour" --out "$REPORT"
    say "done"
    cat "$RUN"/summary_*.txt
    print_timings
    printf '\nOpen %s in a browser.\n' "$REPORT"
}

bash "$HERE/../setup.sh" || exit  # it has said why
own_folder "${BASH_SOURCE[0]}" "$@"
start_over_if_asked "$SETTINGS" "$FRESH_RUN" "$WORLD" "$VOCAB" "$TOKENIZER" "$PRETRAINED" "$DRAWING" "$GAIN" "$RESULTS" "$PAGES" "$REPORT"
mkdir -p "$RESULTS" "$PAGES"
stage "1 draw synthetic shapes" world
stage "2 learn a vocabulary" make_vocabulary
stage "3 train a small image tokenizer" train_tokenizer
stage "4 encode the images" encode
stage "5 collect negative samples" build_negatives
stage "6 pretrain ofa_nano on eight tasks" pretrain
stage "7 score each task on unseen scenes" score_pretrained
stage "8 learn to draw" train_drawing
stage "9 draw unseen captions and check them" draw
GAIN_FILE=
if [ "$GAIN_UPDATES" -ne 0 ]; then
    GAIN_FILE=$RESULTS/gain.json
    stage "10 finetune from it and from scratch" measure_gain
fi
summary
