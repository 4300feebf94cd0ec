#!/usr/bin/env bash
# The docs say what the program says: docs/config.md is `aspis help config`; every command of the README's table exists;
# every config in configs/ is accepted by plan.
set -euo pipefail
aspis=$1
source_dir=$2

diff <(sed -n '/^```$/,/^```$/p' "$source_dir/docs/config.md" | sed '1d;$d') <("$aspis" help config) ||
  { echo "docs/config.md is not what aspis help config prints"; exit 1; }
for command in train launch eval generate forecast score check convert inspect plan bench report doctor; do
  "$aspis" "$command" --help >/dev/null || { echo "the README names $command"; exit 1; }
  grep -qE "\`$command[ \`]|, \`$command\`|\`$command\`," "$source_dir/README.md" || { echo "the README lacks $command"; exit 1; }
done
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
