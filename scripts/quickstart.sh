#!/bin/sh
# Trains configs/quickstart.yaml to the end, scores it against chance, writes its report.
set -eu
cd "$(dirname "$0")/.."

run=runs/quickstart
echo "training configs/quickstart.yaml into $run (about a minute on two cores)"
build/aspis train configs/quickstart.yaml --out $run --resume never
score=$(build/aspis eval $run --json --quiet | sed -E 's/.*"scaled_accuracy": ([-0-9.]+).*/\1/')
report=$(build/aspis report $run)
echo
echo "scaled accuracy at length 64: $score   (guessing: 0, all right: 100)"
echo "report: $report"
awk "BEGIN { exit !($score >= 90) }" || { echo "quickstart: expected at least 90" >&2; exit 1; }
