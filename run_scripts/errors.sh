# Sourced by every script: --help prints its header, and no script ends without a line that says why.
#
# "set -e" ends a script in silence where a command fails that prints nothing, also inside $(...) or a pipe. The line is
# printed once, by the script itself and not by its subshells, after whatever the command has said. "exit" prints nothing.
for argument in "$@"; do
    case $argument in -h | --help) sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0"; exit ;; esac
done
set -eEuo pipefail
trap 'ended_by $? "$BASH_COMMAND" "${BASH_SOURCE[0]##*/}:$LINENO"' ERR

ended_by() {  # ended_by STATUS COMMAND PLACE
    [ "$BASH_SUBSHELL" -gt 0 ] || printf '%s: error: ended with status %s at: %s\n' "$3" "$1" "${2//$'\n'/ }" >&2
}
