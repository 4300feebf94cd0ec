#!/usr/bin/env bash
# The docs say what the program says: docs/config.md is `aspis help config`; every command of the README's table exists;
# every config in configs/ is accepted by plan.
set -euo pipefail
aspis=$1
source_dir=$2

diff <(sed -n '/^```$/,/^```$/p' "$source_dir/docs/config.md" | sed '1d;$d') <("$aspis" help config) ||
  { echo "docs/config.md is not what aspis help config prints"; exit 1; }
for command in train eval generate score check convert inspect plan bench report doctor; do
  "$aspis" "$command" --help >/dev/null || { echo "the README names $command"; exit 1; }
  grep -qE "\`$command[ \`]|, \`$command\`|\`$command\`," "$source_dir/README.md" || { echo "the README lacks $command"; exit 1; }
done
text=$(mktemp)
trap 'rm -f "$text"' EXIT
for _ in $(seq 400); do echo "a text of some length to plan for"; done >"$text"
for config in "$source_dir"/configs/*.yaml; do
  "$aspis" plan "$config" --set data.path=["$text"] --json >/dev/null || { echo "$config is not accepted"; exit 1; }
done
echo "ok: docs, commands and configs agree"
