#!/usr/bin/env bash
# Forecasting end to end: the same bits stopped or not and on any number of threads, the plan to the byte, early stopping that
# ends with its best, a score that repeats training's, the next rows of a CSV and of a stream, and what is refused.
source "$(dirname "$0")/common.sh"

hours 900 >series.csv

cat >f.yaml <<'EOF'
name: f
seed: 3
model: {task: forecast, context: 48, horizon: 12, d_model: 16, n_layer: 1, revin: true, cycle: 24, channel_independent: true, patch_len: 8, stride: 4, head: flatten, dropout: 0.2, ssm_cfg: {layer: Mamba3, d_state: 8, headdim: 8, chunk_size: 8}}
data: {kind: series, path: [series.csv], split: {train: 0.6, val: 0.2, test: 0.2}}
optim: {lr: 5.0e-3}
train: {steps: 120, batch_size: 16, virtual_ranks: 4, eval_every: 40, eval_batches: 2, save_every: 10, log_every: 1}
EOF

# ---- the same bits

OMP_NUM_THREADS=2 "$aspis" train f.yaml --quiet --out whole >whole.txt
OMP_NUM_THREADS=1 "$aspis" train f.yaml --quiet --out one >/dev/null
same_run whole one "one thread and two"

"$aspis" train f.yaml --quiet --out killed >/dev/null &
for _ in $(seq 200); do [ -e killed/checkpoints/step-00000040.h5 ] && break; sleep 0.05; done
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
"$aspis" train f.yaml --quiet --out killed --resume auto >/dev/null
same_run whole killed "killed and resumed"

planned=$("$aspis" plan f.yaml --json | grep -o '"step_bytes": [0-9]*' | grep -o '[0-9]*$')
used=$("$aspis" train f.yaml --verbose --out verbose --set train.steps=3 2>&1 >/dev/null | grep -o 'step [0-9]*, scratch' | tail -1 | grep -o '[0-9]*')
[ "$planned" = "$used" ] || fail "planned $planned bytes of activations, used $used"

# ---- scores

trained=$(grep -o 'val_mse [0-9.]*' whole.txt | cut -d' ' -f2)
"$aspis" eval whole --json >eval.json
evaluated=$(grep -o '"mse": [0-9.e-]*' eval.json | head -1 | cut -d' ' -f2)
[ "$(printf '%.6g' "$evaluated")" = "$trained" ] || fail "training ended at $trained, eval says $evaluated"
for name in naive_mse seasonal_mse mean_mse linear_mse mase smape drop_last per_step per_column; do
  grep -q "\"$name\"" eval.json || fail "eval --json lacks $name"
done
"$aspis" eval whole >eval.txt
for shown in "last row" "season of 24" "window mean" "linear, ridge" "drop_last 32" "by step ahead" "^12 " "by column" "^heat "; do
  grep -q "$shown" eval.txt || fail "the table of eval lacks \"$shown\": $(cat eval.txt)"
done
# The first step's error as the table and as --json tell it.
step=$(grep -o '"per_step": {"steps": 12, "mse": \[[0-9.e-]*' eval.json | cut -d[ -f2 | xargs printf '%.4f')
[ "$(awk '/by step ahead/ { on = 1 } on && $1 == 1 { print $2; exit }' eval.txt)" = "$step" ] ||
  fail "the table does not tell the first step's error $step: $(cat eval.txt)"
"$aspis" eval whole --part test | grep >/dev/null "season of 24" || fail "the season of hours is not a day"

# At far too high a learning rate the best comes early, and is what remains.
"$aspis" train f.yaml --quiet --out early --set train.patience=2 --set train.eval_every=5 --set optim.lr=0.2 \
  --set train.steps=400 >early.txt 2>notes.txt
last=$(ls early/checkpoints/step-*.h5 | tail -1)
[ "$last" != early/checkpoints/step-00000400.h5 ] || fail "a run that got worse was not stopped"
best=$(grep -o '"val_mse":[0-9.e-]*' early/metrics.jsonl | cut -d: -f2 | sort -g | head -1)
[ "$(grep -o 'val_mse [0-9.]*' early.txt | cut -d' ' -f2)" = "$(printf '%.6g' "$best")" ] ||
  fail "the run ends at $(cat early.txt), its best was $best"
cp "$last" before.h5
"$aspis" train f.yaml --quiet --out early --set train.patience=2 --set train.eval_every=5 --set optim.lr=0.2 \
  --set train.steps=400 --resume auto >again.txt 2>notes.txt
cmp early.txt again.txt && cmp "$last" before.h5 || fail "resuming a stopped run changed it"

# ---- pictures

# What is kept of the forecasts has the same bits however the run went, and its score is eval's.
cmp whole/forecasts.json one/forecasts.json && cmp whole/forecasts.json killed/forecasts.json ||
  fail "forecasts.json differs between runs of one config"
[ "$(grep -o '"mse":[0-9.e-]*' whole/forecasts.json | head -1 | cut -d: -f2 | xargs printf '%.6g')" = "$trained" ] ||
  fail "forecasts.json does not tell the last evaluation's score"

# Its second window is what `aspis forecast` says of the file up to there; its truth is the file's.
row=$(grep -o '"row":[0-9]*' whole/forecasts.json | sed -n 2p | cut -d: -f2)
head -$((row + 1)) series.csv >until.csv
"$aspis" forecast whole --input until.csv | tail -12 | cut -d, -f2 >expected.txt
list() { grep -o "\"$1\":\[[^]]*" whole/forecasts.json | sed -n "$2p" | cut -d[ -f2 | tr , '\n'; }
list forecast 3 | paste -d, - expected.txt | awk -F, '{ d = $1 - $2; n++; if (d * d > 1e-9 * $2 * $2) exit 1 } END { if (n != 12) exit 1 }' ||
  fail "the window at row $row: kept $(list forecast 3 | head -2 | xargs), forecast from the file $(head -2 expected.txt | xargs)"
sed -n "$((row + 2)),$((row + 13))p" series.csv | cut -d, -f2 | paste -d, - <(list truth 3 | tail -12) |
  awk -F, '{ d = $1 - $2; if (d * d > 1e-8) exit 1 }' || fail "the truth of the window at row $row is not the file's"

"$aspis" report whole >/dev/null
for figure in forecast-1 forecast-2 error-by-step; do
  [ -s whole/$figure.svg ] || fail "no $figure.svg beside the report"
  grep -q "id=\"$figure-title\"" whole/report.html || fail "$figure is not on the page"
done
# A run that starts anew does not show the forecasts of the one before.
cp -r whole anew
"$aspis" train f.yaml --quiet --out anew --resume never --set debug.allow=true --set debug.fault=nan_loss@3 >/dev/null 2>&1 || true
[ ! -e anew/forecasts.json ] || fail "a fresh start keeps the forecasts of an earlier run"

# ---- the next rows

hours 60 2000 >new.csv
"$aspis" forecast whole --input new.csv --out next.csv
[ "$(wc -l <next.csv)" = 13 ] || fail "$(wc -l <next.csv) lines, expected a header and 12 rows"
[ "$(head -1 next.csv)" = "date,load,heat" ] || fail "header $(head -1 next.csv)"
after=$(hours 1 2060 | tail -1 | cut -d, -f1)
[ "$(sed -n 2p next.csv | cut -d, -f1)" = "$after" ] || fail "the first date is $(sed -n 2p next.csv), expected $after"
"$aspis" forecast whole --input new.csv --json | grep >/dev/null '"columns": {"load": \[' || fail "forecast --json"

"$aspis" train f.yaml --quiet --out spread --set model.loss=quantile --set model.quantiles=[0.1,0.5,0.9] \
  --set train.steps=20 >/dev/null
"$aspis" forecast spread --input new.csv | head -1 | grep >/dev/null "^date,load_q0.1,load_q0.5,load_q0.9,heat_q0.1" ||
  fail "quantiles have no columns"
"$aspis" eval spread --json | grep >/dev/null '"covered": \[' || fail "eval does not tell what quantiles cover"

# A stream gives, after its last row, what one window of all its rows gives.
"$aspis" train f.yaml --quiet --out stream --set train.steps=20 --set model.revin=false --set model.patch_len=1 \
  --set model.stride=1 --set model.head=last >/dev/null
head -49 new.csv >window.csv
"$aspis" forecast stream --stream <window.csv | awk -F, '$1 == 48' | cut -d, -f3- >streamed.csv
"$aspis" forecast stream --input window.csv | tail -12 >windowed.csv
paste -d, streamed.csv windowed.csv | awk -F, '{ d = $2 - $5; e = $3 - $6; n++
  if (d * d > 1e-6 || e * e > 1e-6 || $1 != $4) exit 1 } END { if (n != 12) exit 1 }' ||
  fail "streamed $(head -1 streamed.csv), in one window $(head -1 windowed.csv)"

# ---- every option trains, scores, draws and forecasts

cp series.csv hours.csv
while read -r options; do
  set=()
  for option in $options; do set+=(--set "$option"); done
  rm -rf option
  "$aspis" train hours.yaml --quiet --out option --set train.steps=2 --set train.eval_every=2 "${set[@]}" >/dev/null && "$aspis" eval option --part test >/dev/null &&
    "$aspis" report option >/dev/null && [ -s option/forecast-1.svg ] &&
    [ "$("$aspis" forecast option --input new.csv | wc -l)" = 7 ] || fail "a forecaster with $options"
done <<'EOF'
model.ssm_cfg.layer=Mamba2
model.ssm_cfg.is_mimo=true model.ssm_cfg.mimo_rank=2
model.revin=true
model.revin=last
model.revin=mean
model.channel_independent=true
model.patch_len=8 model.stride=4
model.bidirectional=true
model.head=flatten model.dropout=0.1
model.loss=mae
model.loss=huber
model.loss=quantile model.quantiles=[0.1,0.5,0.9]
model.loss=quantile model.channel_independent=true model.bidirectional=true model.revin=true model.patch_len=8 model.head=flatten
data.features=S data.target=heat
data.features=MS data.target=heat
data.known_columns=[heat] data.calendar=[hour,day_of_week]
data.calendar=[hour] model.known_future=true
data.calendar=[hour] model.known_future=true model.head=rows model.patch_len=3 model.stride=3 model.channel_independent=true model.revin=last
data.borders=[2020-01-20,2020-01-28,2020-02-05]
data.scale=false
dtype=bf16
EOF

# ---- what is known of the rows to forecast

# Sales follow a price that no past row tells: 3 - 2 price, and a little noise.
prices() { # rows from to, columns
  awk -v from="$1" -v to="$2" -v sales="$3" 'BEGIN { print sales ? "date,sales,price" : "date,price"; srand(7)
    for (t = 0; t < to; t++) { p = rand(); e = rand() - 0.5; if (t < from) continue
      d = strftime("%Y-%m-%d", 1577836800 + 86400 * t, 1)
      if (sales) printf "%s,%.4f,%.4f\n", d, 3 - 2 * p + 0.1 * e, p; else printf "%s,%.4f\n", d, p } }'
}
prices 0 600 1 >sales.csv
prices 590 607 0 >prices.csv
prices 600 607 1 | tail -7 | cut -d, -f1,2 >truth.csv
cat >sales.yaml <<'EOF'
name: sales
seed: 2
model: {task: forecast, context: 14, horizon: 7, d_model: 16, n_layer: 1, known_future: true, head: rows, ssm_cfg: {layer: Mamba2, d_state: 8, headdim: 8, chunk_size: 8}}
data: {kind: series, path: [sales.csv], known_columns: [price], calendar: [day_of_week], split: {train: 0.7, val: 0.15, test: 0.15}}
optim: {lr: 1.0e-2}
train: {steps: 150, batch_size: 16, eval_every: 0}
EOF
mse() { "$aspis" eval "$1" --part test --json | grep -o '"mse": [0-9.e-]*' | head -1 | cut -d' ' -f2; }
"$aspis" train sales.yaml --quiet --out told >/dev/null
"$aspis" train sales.yaml --quiet --out untold --set model.known_future=false --set model.head=last >/dev/null
awk -v told="$(mse told)" -v untold="$(mse untold)" 'BEGIN { exit !(told < 0.05 && untold > 0.8) }' ||
  fail "told the prices the error is $(mse told), not told $(mse untold); expected below 0.05 and above 0.8"
"$aspis" forecast told --input sales.csv --future prices.csv | tail -7 | paste -d, - truth.csv |
  awk -F, '{ d = $2 - $4; n++; if ($1 != $3 || d * d > 0.04) exit 1 } END { if (n != 7) exit 1 }' ||
  fail "forecast with prices: $("$aspis" forecast told --input sales.csv --future prices.csv | xargs), expected $(xargs <truth.csv)"
planned=$("$aspis" plan sales.yaml --json | grep -o '"step_bytes": [0-9]*' | grep -o '[0-9]*$')
used=$("$aspis" train sales.yaml --verbose --out told-verbose --set train.steps=3 2>&1 >/dev/null | grep -o 'step [0-9]*, scratch' | tail -1 | grep -o '[0-9]*')
[ "$planned" = "$used" ] || fail "with a known future planned $planned bytes of activations, used $used"
"$aspis" check sales.yaml >/dev/null || fail "the gradients of a known future"

# ---- what is refused

sed 's/heat/cold/' new.csv >other.csv
refused 3 "lacks heat" "$aspis" forecast whole --input other.csv
head -20 new.csv >short.csv
refused 3 "expected at least model.context = 48" "$aspis" forecast whole --input short.csv
refused 2 "model.revin" "$aspis" forecast whole --stream
refused 2 "expected --input" "$aspis" forecast whole
"$aspis" train small.yaml --quiet --out lm --set train.steps=5 >/dev/null
refused 4 "expected a forecaster" "$aspis" forecast lm --input new.csv
refused 2 "data.kind: found series beside model.task: lm" "$aspis" train f.yaml --out x --set model.task=lm
refused 2 "model.input_dim: found 5, expected the data's 2 columns" "$aspis" train f.yaml --out x --set model.input_dim=5
refused 2 "expected --future FILE.csv with them: price, day_of_week" "$aspis" forecast told --input sales.csv
refused 2 "reads nothing of the rows to forecast" "$aspis" forecast untold --input sales.csv --future prices.csv
refused 3 "found 0 rows after the last of sales.csv, expected 7" "$aspis" forecast told --input sales.csv --future sales.csv
refused 2 "model.known_future" "$aspis" forecast told --stream
refused 2 "model.known_future: found no known column" "$aspis" train f.yaml --out x --set model.known_future=true
refused 2 "model.head: found rows with known_future: true, patch_len: 2" "$aspis" train sales.yaml --out x --set model.patch_len=2
refused 3 "found no windows" "$aspis" eval whole --part test --set data.split.test=0

echo "ok: forecasts train, score and stream"
