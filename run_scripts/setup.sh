#!/usr/bin/env bash
# Purpose:  make .venv, the Python environment of this checkout; done already: returns at once.
# Command:  bash run_scripts/setup.sh
# Takes:    2 to 4 minutes and 6 GB with Python 3.12 (ready wheels); 8 to 12 minutes with 3.11,
#           where fairseq is compiled and a C++ compiler is needed.
# Settings: OFA_VENV    folder of the environment                        [.venv]
#           OFA_PYTHON  interpreter to use: its torch is respected when it has one; without it,
#                       python3.12, then python3.11, are looked for (also pyenv's).
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${OFA_VENV:-$ROOT/.venv}
STAMP="$VENV/.ofa-setup"
CONSTRAINTS=$ROOT/run_scripts/constraints.txt

say() { printf '[setup %s] %s\n' "$(date +%H:%M:%S)" "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 2; }
fingerprint() { cat "$ROOT/setup.py" "$CONSTRAINTS" | sha256sum | cut -d' ' -f1; }
ready() { [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$(fingerprint)" ]; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

find_python() {  # prints the interpreter to build on: 3.12 first, then 3.11
    local want candidate
    for want in 3.12 3.11; do
        for candidate in "python$want" "$HOME/.pyenv/versions/$want".*/bin/python "${PYENV_ROOT:-/nonexistent}/versions/$want".*/bin/python python3; do
            if [ "$(version_of "$candidate")" = "$want" ] && "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
                "$candidate" -c 'import sys; print(sys.executable)'
                return
            fi
        done
    done
}

install_python() {  # a Debian or Ubuntu machine without a usable Python: install the distribution's
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 0
    say "no Python 3.12 or 3.11 with venv found: installing the distribution's python3-venv and compiler"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv python3-dev g++ >/dev/null
}

choose_python() {
    if [ -n "${OFA_PYTHON:-}" ]; then
        PYTHON=$OFA_PYTHON
        case "$(version_of "$PYTHON")" in
            3.11 | 3.12) ;;
            *) fail "OFA_PYTHON: expects Python 3.11 or 3.12, found '$(version_of "$PYTHON")' at $PYTHON" ;;
        esac
        return
    fi
    PYTHON=$(find_python)
    [ -n "$PYTHON" ] || { install_python; PYTHON=$(find_python); }
    [ -n "$PYTHON" ] || fail "expects Python 3.12 or 3.11 with venv, found neither. On Debian or Ubuntu: apt-get install python3-venv python3-dev g++ (or name an interpreter: OFA_PYTHON=/path/to/python bash run_scripts/setup.sh)"
}

make_venv() {
    if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        say "continuing with the environment in $VENV (Python $(version_of "$VENV/bin/python"))"
        return
    fi
    local flags=()
    if [ -n "${OFA_PYTHON:-}" ] && "$PYTHON" -c 'import torch' 2>/dev/null; then
        flags=(--system-site-packages)
        say "OFA_PYTHON has torch $("$PYTHON" -c 'import torch; print(torch.__version__)'): it is used as it is"
    fi
    say "making $VENV with $PYTHON (Python $(version_of "$PYTHON"))"
    "$PYTHON" -m venv --clear "${flags[@]}" "$VENV"
}

pip_install() {  # on a terminal pip draws its own bars; in a log, one line per large step
    if [ -t 1 ]; then
        "$VENV/bin/python" -m pip install --disable-pip-version-check "$@"
    else
        "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 |
            awk '/Downloading .*MB|Building|Installing collected|Successfully|ERROR|error:/ { print "    " substr($0, 1, 150); fflush() }'
    fi
}

install_packages() {
    local constraints=(-c "$CONSTRAINTS")
    if "$VENV/bin/python" -c 'import torch' 2>/dev/null && ! "$VENV/bin/python" -c 'import torch,sys; sys.exit(not torch.__version__.startswith("2.11.0"))'; then
        constraints=()  # a torch that was there before: keep it
        "$VENV/bin/python" -c 'import torchvision' 2>/dev/null || fail "torch of OFA_PYTHON has no torchvision beside it: install the torchvision that belongs to this torch, or use an interpreter without torch"
    else
        say "1/3 torch 2.11.0 and torchvision 0.26.0 (the largest part: 1 to 3 minutes)"
        pip_install "${constraints[@]}" torch torchvision
    fi
    if [ "$(version_of "$VENV/bin/python")" = 3.12 ]; then
        say "2/3 fairseq (ready wheel)"
        pip_install "${constraints[@]}" fairseq-fixed==0.12.3.1
    elif ! "$VENV/bin/python" -c 'import fairseq' 2>/dev/null; then
        say "2/3 fairseq is compiled for this Python: 4 to 6 minutes"
        command -v g++ >/dev/null || fail "compiling fairseq expects g++, found none. Run: apt-get install g++ python3-dev (or use Python 3.12, which needs no compiler)"
        pip_install "setuptools<81" wheel cython numpy ninja
        (unset CUDA_HOME && pip_install --no-build-isolation "${constraints[@]}" fairseq-fixed==0.12.3.1)
    fi
    say "3/3 this project and what it needs"
    pip_install "setuptools<81" wheel
    pip_install "${constraints[@]}" --no-build-isolation -e "$ROOT[test]"
    # gradio asks for a Pillow below 13, as a precaution (ofa demo is tested with 13). The JPEG decoder of older ones
    # makes pixels that differ by a grey level here and there from those the golden numbers were recorded with.
    pip_install --no-deps --upgrade "pillow>=13"
}

check() {
    local problem
    problem=$("$VENV/bin/python" -c 'import torch, torchvision, fairseq, ofa; torchvision.ops.nms' 2>&1) ||
        fail "the environment in $VENV does not import torch, torchvision, fairseq and ofa together: $(tail -n 1 <<<"$problem"). Remove the folder and run this script again"
}

if ready; then exit 0; fi
mkdir -p "$(dirname "$VENV")"
exec 9>"$VENV.lock"
if command -v flock >/dev/null && ! flock -n 9; then
    say "another set-up is at work on $VENV: waiting for it"
    flock 9
fi
if ready; then exit 0; fi
START=$(date +%s)
say "setting up the Python environment; this is done once and takes 2 to 12 minutes"
choose_python
make_venv
install_packages
check
fingerprint >"$STAMP"
say "done in $(($(date +%s) - START)) s: $VENV"
