#!/usr/bin/env bash
# Purpose:  watch OFA learn to caption images, answer questions about them and point at what is meant, from nothing to a
#           scored page, on an ordinary computer.
# Needs:    two processor cores, 4 GB of memory, 1 GB of disk (and once 6 GB for the Python environment).
# Command:  bash run_scripts/quickstart.sh            12 to 14 minutes on 2 cores after the set-up
#           bash run_scripts/quickstart.sh --long     at most 40 minutes, better at everything
#           --fresh starts over. The same call again continues an interrupted run, or finishes at once.
# Makes:    runs/quickstart/report.html (--long: runs/quickstart_long/...); QUICKSTART_DIR chooses another folder.
. "$(dirname "${BASH_SOURCE:-$0}")/recipe.sh" || exit
ofa quickstart "$@"
