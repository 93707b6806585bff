# Sourced first by the scripts: "sh SCRIPT" runs in bash, --help prints the header of the script, HERE and ROOT are
# set, and "ofa" is the command of this environment, which is set up if need be ("ofa train" sets OFA_EXECUTABLE).
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
HERE=$(cd "$(dirname "${BASH_SOURCE[1]:-$0}")" && pwd)
CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ROOT=${OFA_ROOT:-$CHECKOUT}
. "$CHECKOUT/run_scripts/errors.sh"
for argument in "$@"; do
    case $argument in -h | --help) sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0"; exit ;; esac
done

ofa() {
    local python=${OFA_EXECUTABLE:-${OFA_VENV:-$CHECKOUT/.venv}/bin/python}
    [ -n "${OFA_EXECUTABLE:-}${DRY_RUN:-}" ] || bash "$CHECKOUT/run_scripts/setup.sh" || exit  # it has said why
    [ -x "$python" ] || python=python3  # a dry run before the set-up
    [ ! -f "$CHECKOUT/setup.py" ] || export PYTHONPATH="$CHECKOUT${PYTHONPATH:+:$PYTHONPATH}"
    OFA_RECIPE=1 NPROC=${NPROC:-0} exec "$python" -m ofa "$@"
}
