#!/usr/bin/env bash
# The docs say what the program says: docs/config.md is `aspis help config`; the README names every command; the files that
# README and docs name, and the sections of the specification that comments name, are there; every config in configs/ is
# accepted by plan.
set -euo pipefail
aspis=$1
source_dir=$2

diff <(sed -n '/^```$/,/^```$/p' "$source_dir/docs/config.md" | sed '1d;$d') <("$aspis" help config) ||
  { echo "docs/config.md is not what aspis help config prints"; exit 1; }
for command in $(sed -nE 's/^COMMAND\((\w+).*/\1/p' "$source_dir/train/cmd/commands.def"); do
  "$aspis" "$command" --help >/dev/null || { echo "$command has no --help"; exit 1; }
  grep -qE "\`(aspis )?$command[ \`]" "$source_dir/README.md" || { echo "the README lacks $command"; exit 1; }
done
cd "$source_dir"
rooms='tensor|autograd|nn|models|optim|data|train|configs|tests|examples|docs|scripts'
for path in $(grep -ohE "\`($rooms)/[][A-Za-z0-9_./*<>-]+" README.md docs/*.md | tr -d '\`' | sed -E 's/wN|<[a-z]+>/*/' | sort -u); do
  compgen -G "$path" >/dev/null || { echo "README or docs name $path, which is not there"; exit 1; }
done
for section in $(grep -rhoE '\bspec(ification)?,? (sections? )?[0-9](\.[0-9])?( and [0-9](\.[0-9])?)?' tensor autograd nn models optim data train tests |
  grep -oE '[0-9](\.[0-9])?' | sort -u); do
  grep -qE "^##+ $section\.? " docs/mamba.md || { echo "a comment names section $section of docs/mamba.md, which is not there"; exit 1; }
done
cd - >/dev/null
text=$(mktemp)
series=$text.csv
trap 'rm -f "$text" "$series"' EXIT
for _ in $(seq 400); do echo "a text of some length to plan for"; done >"$text"
# Twenty months of hours, seven columns.
awk 'BEGIN { print "date,a,b,c,d,e,f,g"; for (t = 0; t < 14500; t++) {
  printf "%s", strftime("%Y-%m-%d %H:00:00", 1577836800 + 3600 * t, 1)
  for (c = 0; c < 7; c++) printf ",%.3f", sin(0.26 * t + c) + 0.001 * (t % 97); print "" } }' >"$series"
for config in "$source_dir"/configs/*.yaml; do
  data=$text
  included=$(sed -n "s|^include: |$source_dir/configs/|p" "$config")
  if grep -q "kind: series" "$config" ${included:+"$included"}; then data=$series; fi
  set=(--set data.path=["$data"])
  if grep -q "generate:" "$config"; then set=(); fi
  "$aspis" plan "$config" "${set[@]}" --json >/dev/null || { echo "$config is not accepted"; exit 1; }
done
echo "ok: docs, commands and configs agree"
