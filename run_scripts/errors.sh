# Sourced by every script: no script ends without a line that says why.
#
# "set -e" ends a script in silence where a command fails that prints nothing, also inside $(...) or a pipe. The line is
# printed once, by the script itself and not by its subshells, after whatever the command has said. "exit" prints nothing.
set -eEuo pipefail
trap 'ended_by $? "$BASH_COMMAND" "${BASH_SOURCE[0]##*/}:$LINENO"' ERR

ended_by() {  # ended_by STATUS COMMAND PLACE
    [ "$BASH_SUBSHELL" -gt 0 ] || printf '%s: error: ended with status %s at: %s\n' "$3" "$1" "${2//$'\n'/ }" >&2
}
