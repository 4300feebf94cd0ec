#!/usr/bin/env bash
# bench times what it says and says what it times: every case of --list gives its lines, with every field, in both types;
# FLOPs are counted as docs/performance.md says; wrong words are refused in one line. Sizes are tiny: no time is held to
# anything.
# shellcheck source=tests/scripts/common.sh
source "$(dirname "$0")/common.sh"

tiny=(--seconds 0 --set model.d_model=32 --set model.n_layer=1 --set model.ssm_cfg.d_state=8 --set model.ssm_cfg.headdim=16
  --set model.ssm_cfg.chunk_size=8 --set train.batch_size=2 --set data.seq_len=16 --set model.context=16)
fields="case pass shape dtype ms min_ms runs gflops gb_per_s peak_fraction bound tok_per_s peak_rss_mib other_cpu_pct threads cpu"

# positive FIELD LINE...: the number is above zero in every line.
positive() {
  local field=$1 value
  shift
  for line in "$@"; do
    value=$(sed -E "s/.*\"$field\": ([^,}]*).*/\1/" <<<"$line")
    awk -v x="$value" 'BEGIN { exit !(x + 0 > 0) }' || fail "$field is not above zero: $line"
  done
}

for dtype in f32 bf16; do
  "$aspis" bench --json "${tiny[@]}" --set dtype=$dtype >lines.txt
  while read -r name _; do
    [ "$name" = machine ] && continue
    passes=$(grep -cF "\"case\": \"$name\"," lines.txt || true)
    case $name in mixer | adamw | step) expected=1 ;; *) expected=2 ;; esac
    [ "$passes" = $expected ] || fail "$dtype: $passes lines of $name, expected $expected"
  done < <("$aspis" bench --list)
  mapfile -t lines < <(grep -v '"case": "machine"' lines.txt)
  for line in "${lines[@]}"; do
    for field in $fields; do grep -qF "\"$field\": " <<<"$line" || fail "$dtype: no $field in $line"; done
    grep -qF "\"dtype\": \"$dtype\"" <<<"$line" || fail "not $dtype: $line"
  done
  positive ms "${lines[@]}"
  positive peak_rss_mib "${lines[@]}"
  echo "ok: $dtype: ${#lines[@]} lines"
done
[ "$(grep -c '"case": "machine"' lines.txt)" -ge 6 ] || fail "the machine's ceilings are missing: $(cat lines.txt)"
mapfile -t lines < <(grep -E '"case": "(gemm|scan|mamba|mixer|step)' lines.txt)
positive gflops "${lines[@]}"
mapfile -t lines < <(grep -E '"case": "(norm|conv|gate|adamw)' lines.txt)
positive gb_per_s "${lines[@]}"

# Only what was asked for; a group is all of its cases.
[ "$("$aspis" bench scan --json "${tiny[@]}" | wc -l)" = 6 ] || fail "bench scan: expected 6 lines"
[ "$("$aspis" bench mixer --json "${tiny[@]}" | wc -l)" = 1 ] || fail "bench mixer: expected one line"
"$aspis" bench norm "${tiny[@]}" >table.txt
grep -q 'multiply-adds f32' table.txt || fail "no ceilings above the table: $(cat table.txt)"
grep -qE '^norm +backward' table.txt || fail "the table: $(cat table.txt)"

# Every workload of configs/bench runs, without data, shrunk; a Mamba-2 and a forecaster as mixers too.
for config in "$source_dir"/configs/bench/*.yaml; do
  line=$("$aspis" bench step --json --config "$config" "${tiny[@]}")
  positive tok_per_s "$line"
  grep -qF "\"shape\": \"$(basename "$config" .yaml): d_model 32 x 1" <<<"$line" || fail "$config: $line"
done
for config in w6 w7; do
  positive tok_per_s "$("$aspis" bench mixer --json --config "$source_dir/configs/bench/$config.yaml" "${tiny[@]}")"
done
echo "ok: configs/bench"

# FLOPs a token: 6 for each parameter in a product, and 3 x (4 P N + 2 P 64) a head and layer for the scan; Mamba-2's
# convolution beside them.
per_token() { "$aspis" plan "$source_dir/configs/bench/$1.yaml" --json | sed -E 's/.*"flops_per_token": ([0-9]+).*/\1/'; }
w3_products=$((6 * (384 * (2 * 768 + 2 * 64 + 3 * 12 + 16) + 768 * 384) + 256 * 384))
w3=$((6 * w3_products + 3 * 6 * 12 * (4 * 64 * 64 + 2 * 64 * 64)))
[ "$(per_token w3)" = $w3 ] || fail "W3: $(per_token w3) FLOP a token, expected $w3"
for expected in w2:40000000 w4:845000000; do
  config=${expected%%:*} flops=${expected##*:}
  awk -v x="$(per_token "$config")" -v y="$flops" 'BEGIN { exit !(x > 0.99 * y && x < 1.01 * y) }' ||
    fail "$config: $(per_token "$config") FLOP a token, expected about $flops"
done
for recompute in mixer block; do
  [ "$("$aspis" plan "$source_dir/configs/bench/w3.yaml" --set train.recompute=$recompute --json |
    sed -E 's/.*"flops_per_token": ([0-9]+).*/\1/')" = $w3 ] || fail "W3: recompute: $recompute changes the FLOPs counted"
done
echo "ok: FLOPs"

# Generation: a line for the prompt and one for a token, the latter held to reading the weights.
"$aspis" bench decode --json --seconds 0.05 --set model.d_model=64 --set model.n_layer=2 --prompt 40 --batch 3 >out.txt
grep -q '"pass": "prompt"' out.txt || fail "bench decode: no line of the prompt: $(cat out.txt)"
grep '"pass": "token"' out.txt | grep >/dev/null '"bound": "weights".*"tok_per_s": [1-9]' || fail "bench decode: $(cat out.txt)"
"$aspis" bench decode --json --seconds 0.05 --set model.d_model=64 --set model.n_layer=2 --prompt 40 --tokens 200 >out.txt
for how in "" un; do
  grep -c "\"pass\": \"200 ${how}cached\".*\"ms\": [1-9]" out.txt >/dev/null || fail "bench decode --tokens: $(cat out.txt)"
done
[[ $(cat out.txt) == *" times as long, by 9 prefixes"* ]] || fail "bench decode --tokens: $(cat out.txt)"
echo "ok: decode"

refused 2 'aspis bench --list' "$aspis" bench gemn
refused 2 'one sequence is compared' "$aspis" bench decode --batch 2 --tokens 8
refused 2 'found a forecaster' "$aspis" bench decode --set model.task=forecast --set data.kind=series
refused 2 '--seconds' "$aspis" bench gemm --seconds -1
refused 2 'nowhere.yaml' "$aspis" bench step --config nowhere.yaml
refused 2 'model.d_modle' "$aspis" bench norm --set model.d_modle=3
refused 2 'ssm_cfg.headdim' "$aspis" bench norm --set model.ssm_cfg.headdim=60

# The tables of docs/performance.md are written between their marks, the rest stays.
if command -v python3 >/dev/null; then
  cp "$source_dir/docs/performance.md" doc.md
  {
    printf '{"key": ["torch", "W7", "f32"], "lines": [{"who": "torch", "version": "torch 0", "ms": 20, "peak_rss_mib": 1}]}\n'
    printf '{"key": ["mamba2-jax", "W7", "f32"], "lines": [{"failed": "not done in 1 s"}]}\n'
  } >results.jsonl
  python3 "$source_dir/tests/bench/run.py" --tables --aspis "$aspis" --results results.jsonl --doc doc.md
  grep -qE '^\| W7 \| f32 \| .*\| 20 ms, 1 MiB \| failed \|' doc.md || fail "the table: $(grep W7 doc.md)"
  plain() { sed '/<!-- .*: begin -->/,/<!-- .*: end -->/d' "$1"; }
  diff <(plain "$source_dir/docs/performance.md") <(plain doc.md) || fail "the tables changed the text around them"
  echo "ok: tables"
fi
