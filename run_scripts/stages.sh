# Sourced by scripts that run in stages: what one call has finished the next one does not do again.
#
# Needs LABEL (in front of messages), RUN (folder of the run), ROOT (the checkout) and PYTHON.

say() { printf '\n\033[1m[%s] %s\033[0m\n' "$LABEL" "$*"; }

start_over_if_asked() {  # start_over_if_asked SETTINGS FRESH PATHS...: what was made with other settings does not fit; only PATHS go
    local settings=$1 fresh=$2
    shift 2
    if [ -e "$RUN/settings" ] && { [ -n "$fresh" ] || [ "$(cat "$RUN/settings")" != "$settings" ]; }; then
        say "starting over: removing $RUN"
        rm -rf "$@" "$RUN/done" "$RUN/timings.tsv" "$RUN"/summary*.txt "$RUN/settings"
    fi
    mkdir -p "$RUN/done"
    printf '%s' "$settings" >"$RUN/settings"
}

own_folder() {  # own_folder SCRIPT ARGS...: the script anew, as owner of RUN: two calls would remove each other's stages
    if [ "${OFA_STAGES_OWNER:-}" != $$ ]; then
        export OFA_STAGES_OWNER=$$
        PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" -m ofa.cli.with_folder_lock "$RUN" bash "$@"
    fi
    trap 'rm -f "$RUN/run.lock"' EXIT
}

stage() {  # stage NAME COMMAND...: run a stage that has not been finished before, and note its time
    local name=$1 started=$SECONDS
    shift
    [ ! -e "$RUN/done/$name" ] || return 0
    say "$name"
    "$@"
    printf '%s\t%s\n' "$name" $((SECONDS - started)) >>"$RUN/timings.tsv"
    touch "$RUN/done/$name"
}

stop_if_interrupted() {  # stop_if_interrupted FOLDER: a training that was saved, but not at its end, is no finished stage
    if [ -e "$1/interrupted" ]; then
        say "interrupted; the same call again continues from here"
        exit 130
    fi
}

print_timings() {
    printf '\ntime per stage\n'
    awk -F'\t' '{ printf "  %-38s %5d s\n", $1, $2; sum += $2 } END { printf "  %-38s %5d s\n", "together", sum }' "$RUN/timings.tsv"
}

ofa() { (cd "$ROOT" && "$PYTHON" -m ofa "$@"); }

hours() { awk "BEGIN { print $1 / 60 }"; }
