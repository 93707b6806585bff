#!/usr/bin/env bash
# Purpose:  make .venv, the Python environment of this checkout; done already: returns at once.
# Command:  bash run_scripts/setup.sh
# Takes:    2 to 4 minutes and 6 GB with Python 3.12 (ready wheels); 8 to 12 minutes with 3.11,
#           where fairseq is compiled and a C++ compiler is needed.
# Settings: OFA_VENV    folder of the environment                        [.venv]
#           OFA_PYTHON  interpreter to use: its torch is respected when it has one; without it,
#                       python3.12, then python3.11, are looked for (also pyenv's).
#           OFA_TORCH   2.11.0 or 2.10.0; without it, 2.10.0 where nvidia-smi finds a GPU below sm_75 or a
#                       driver of CUDA 12, else 2.11.0 (torch_versions.txt).
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/run_scripts/errors.sh"
VENV=${OFA_VENV:-$ROOT/.venv}
STAMP="$VENV/.ofa-setup"
CONSTRAINTS=$VENV/torch-constraints.txt
VERSIONS=$ROOT/run_scripts/torch_versions.txt

say() { printf '[setup %s] %s\n' "$(date +%H:%M:%S)" "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 2; }
fingerprint() { sed '/^\[tool\.ruff\]/,$d' "$ROOT/pyproject.toml" | cat - "$ROOT/setup.py" "$VERSIONS" | sha256sum | cut -d' ' -f1; }
# The stamp is the fingerprint and the torch that is there. GPUs are not asked for again: every training comes by here.
ready() {
    local print= torch=
    [ -x "$VENV/bin/python" ] && [ -r "$STAMP" ] || return 1
    { read -r print && read -r torch; } <"$STAMP" || true
    [ "$print" = "$(fingerprint)" ] && [ "${OFA_TORCH:-$torch}" = "$torch" ]
}
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
package_version() { "$1" -c "import importlib.metadata as m; print(m.version('$2'))" 2>/dev/null || true; }  # PYTHON NAME

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

# An environment that is continued and an OFA_PYTHON with torch keep it; else torch_versions.txt and the GPUs decide.
choose_torch() {
    local answer owner=$VENV/bin/python remedy="remove $VENV and run this script again, or choose another folder (OFA_VENV)"
    [ -x "$owner" ] || owner=${OFA_PYTHON:-} remedy="change it there, or use an interpreter without torch (OFA_PYTHON)"
    TORCH= REASON="is there: $owner"
    [ -z "$owner" ] || TORCH=$(package_version "$owner" torch)  # a Python that was found here keeps its torch to itself
    if [ -n "$TORCH" ]; then
        # 2.11.0 and 2.11.1+cu130 are fine, a preview such as 2.11.0a0 is not
        [[ $TORCH =~ ^([0-9]+\.[0-9]+)\.[0-9]+(\+.*)?$ ]] && grep -q "^${BASH_REMATCH[1]//./\\.}\." "$VERSIONS" ||
            fail "torch: expects one of $(awk '/^[0-9]/ { printf "%s ", $1 }' "$VERSIONS")or a later fix of it, found $TORCH of $owner: $remedy"
        [ "${OFA_TORCH:-${TORCH%%+*}}" = "${TORCH%%+*}" ] || fail "OFA_TORCH=$OFA_TORCH, but $owner has torch $TORCH: $remedy"
        TORCHVISION=$(package_version "$owner" torchvision)
        [ "$owner" = "$PYTHON" ] || TORCHVISION=${TORCHVISION:-$(awk -v torch="${TORCH%%+*}" '$1 == torch { print $2 }' "$VERSIONS")}
        [ -n "$TORCHVISION" ] || fail "torch $TORCH of $owner has no torchvision beside it: $remedy"
        return
    fi
    answer=$(PYTHONSAFEPATH=1 PYTHONPATH=$ROOT "$PYTHON" -m ofa.devices "$VERSIONS") || exit 2
    IFS=$'\t' read -r TORCH TORCHVISION REASON <<<"$answer"
}

make_venv() {
    if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        say "continuing with the environment in $VENV (Python $(version_of "$VENV/bin/python"))"
        return
    fi
    local flags=()
    [ -z "${OFA_PYTHON:-}" ] || [ -z "$(package_version "$PYTHON" torch)" ] || flags=(--system-site-packages)
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
    printf '%s\n' "torch==$TORCH" "torchvision==$TORCHVISION" >"$CONSTRAINTS"
    say "1/3 torch $TORCH, torchvision $TORCHVISION (the largest part: 1 to 3 minutes)"
    pip_install -c "$CONSTRAINTS" torch torchvision
    if [ "$(version_of "$VENV/bin/python")" = 3.12 ]; then
        say "2/3 fairseq (ready wheel)"
        pip_install -c "$CONSTRAINTS" fairseq-fixed==0.12.3.1
    elif ! "$VENV/bin/python" -c 'import fairseq' 2>/dev/null; then
        say "2/3 fairseq is compiled for this Python: 4 to 6 minutes"
        command -v g++ >/dev/null || fail "compiling fairseq expects g++, found none. Run: apt-get install g++ python3-dev (or use Python 3.12, which needs no compiler)"
        pip_install "setuptools<81" wheel cython numpy ninja
        (unset CUDA_HOME && pip_install --no-build-isolation -c "$CONSTRAINTS" fairseq-fixed==0.12.3.1)
    fi
    say "3/3 this project and what it needs"
    pip_install "setuptools<81" wheel
    pip_install -c "$CONSTRAINTS" --no-build-isolation -e "$ROOT[test]"
    # gradio asks for a Pillow below 13, as a precaution (ofa demo is tested with 13). The JPEG decoder of older ones
    # makes pixels that differ by a gray level here and there from those the golden numbers were recorded with.
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
choose_torch
say "torch $TORCH $REASON"
make_venv
install_packages
check
{ fingerprint && echo "${TORCH%%+*}"; } >"$STAMP"
say "done in $(($(date +%s) - START)) s: $VENV"
