#!/usr/bin/env bash
# Purpose:  watch OFA being pretrained: eight tasks in one stream, then drawing, on an ordinary computer.
# Needs:    two processor cores, 4 GB of memory, 2 GB of disk (and once 6 GB for the Python environment).
# Command:  bash run_scripts/pretraining/demo.sh     75 to 110 minutes on 2 cores after the set-up; the pretraining itself at most
#           30 minutes. --fresh starts over. The same call again continues an interrupted run, or finishes at once.
# Makes:    runs/pretraining_demo/report.html; DEMO_DIR chooses another folder.
. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit
ofa quickstart --pretraining "$@"
