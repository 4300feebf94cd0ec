#!/usr/bin/env bash
# Bad input ends in one clear line and the documented exit code, and nothing is lost.
source "$(dirname "$0")/common.sh"

train="$aspis train small.yaml --quiet --out run"

refused 2 'did you mean "optim.lr"' $train --set optim.lrr=1
LINES_WANTED=2 refused 2 'model.d_model' $train --set optim.lrr=1 --set model.d_model=-3
printf 'name: [unclosed\n' >broken.yaml
refused 2 'broken.yaml:' "$aspis" train broken.yaml
refused 2 'missing.yaml' "$aspis" train missing.yaml
refused 2 'virtual_ranks' $train --set train.virtual_ranks=3
refused 7 'MiB even with micro-batches of one sequence, 1.00 MiB are available' "$aspis" plan small.yaml --device-memory 1M
refused 2 'unknown command' "$aspis" tarin small.yaml

: >empty.txt
refused 3 'empty.txt' $train --set data.path=[empty.txt]
refused 3 'nowhere.txt' $train --set data.path=[nowhere.txt]
refused 3 'seq_len' $train --set data.seq_len=40000
printf 'caf\xff\n' >latin1.txt
refused 3 'UTF-8' $train --set data.path=[latin1.txt]

$train >/dev/null
last=run/checkpoints/step-00000120.h5
printf 'Ωmega %.0s' $(seq 2000) >greek.txt
refused 3 'greek.txt' "$aspis" eval run --set data.path=[greek.txt]
refused 3 '--prompt: byte offset 0: character' "$aspis" generate run --prompt 'Ω' --max-tokens 2
refused 3 'vocabulary' "$aspis" generate run --prompt-tokens 9999 --max-tokens 2
printf '\0' >zero.txt
refused 3 'zero.txt: byte offset 0: character' "$aspis" generate run --prompt-file zero.txt
refused 2 '--prompt: found an empty prompt' "$aspis" generate run --prompt ''
refused 2 'generate: --dtype: found "f16", expected one of f32, bf16' "$aspis" generate run --dtype f16
refused 2 'bench: --device: found "tpu", expected one of auto, cpu, cuda' "$aspis" bench gemm --device tpu
refused 7 'bench: needs ' "$aspis" bench norm --seconds 0 --set data.seq_len=16777216 --set model.d_model=65536
refused 2 'bench: found 1024 sequences of 16777216 tokens, expected at most' "$aspis" bench norm --seconds 0 --set data.seq_len=16777216 --set train.batch_size=1024
refused 2 'launch: -n: found "0", expected an integer' "$aspis" launch -n 0 -- train small.yaml
refused 2 'eval: found an empty argument, expected MODEL' "$aspis" eval ''
for size in 1e40 nanG infG 9999999999T -1G 0 80GB; do
  refused 2 "--device-memory: found $size, expected a size like 80G" "$aspis" plan small.yaml --device-memory $size
  refused 2 "--rate: found $size, expected a rate like 400G" "$aspis" plan small.yaml --network 400G --rate $size
done
refused 2 '...: seed: found' $train --set seed=$(printf 'a%.0s' $(seq 3000))
[ "$(wc -c <err.txt)" -lt 400 ] || fail "a long --set is told whole: $(wc -c <err.txt) bytes"

head -c 3000 $last >short.h5
refused 4 'short.h5' "$aspis" eval short.h5
echo 'not a checkpoint' >foreign.h5
refused 4 'foreign.h5' "$aspis" eval foreign.h5
refused 4 'nothing-here: No such file or directory; expected a run directory' "$aspis" eval nothing-here
refused 4 'another model' "$aspis" train small.yaml --quiet --out run --resume auto --set model.n_layer=3 --set train.steps=50

# Names that are no UTF-8, which neither YAML nor JSON can write.
odd=$(printf 'caf\xe9')
mkdir "$odd" && cp text.txt small.yaml "$odd"
(cd "$odd" && "$aspis" train small.yaml --quiet --out run --set train.steps=5 >../told.txt && "$aspis" eval run >../evaluated.txt) ||
  fail "a folder whose name is no UTF-8"
"$aspis" prepare "$odd/text.txt" --out shards --document-end "$(printf '\xff')" >out.txt 2>err.txt || fail "a text whose name is no UTF-8: $(cat err.txt)"
grep -qF 'caf%E9/text.txt' shards/manifest.json || fail "a text whose name is no UTF-8: $(cat shards/manifest.json)"
echo "ok: names that are no UTF-8"

# A damaged newest checkpoint is passed over for the one before, and said so.
cp -r run damaged
printf '\377' | dd of=damaged/checkpoints/step-00000120.h5 bs=1 seek=9000 conv=notrunc 2>/dev/null
"$aspis" train small.yaml --quiet --out damaged --resume auto >/dev/null 2>err.txt || fail "resume past a damaged checkpoint: $(cat err.txt)"
grep -q 'step-00000120' err.txt || fail "the damaged checkpoint was not named: $(cat err.txt)"
cmp $last damaged/checkpoints/step-00000120.h5 || fail "the resumed run differs"
echo "ok: a damaged checkpoint is passed over"

# NaN stops before the update, names step and tensor, and the weights are those of the step before.
nan="$aspis train small.yaml --quiet --set debug.allow=true"
refused 5 'step 17: the loss is' $nan --out nan-loss --set debug.fault=nan_loss@17
[ -e nan-loss/checkpoints/step-00000016.h5 ] || fail "the step before the NaN was not saved"
refused 5 'step 17: the gradient of backbone.' $nan --out nan-grad --set debug.fault=nan_grad@17
$nan --out nan-skip --set debug.fault=nan_grad@17 --set train.nonfinite=skip >/dev/null 2>err.txt || fail "skip: $(cat err.txt)"
grep -q 'step 17 skipped' err.txt || fail "the skipped step was not told: $(cat err.txt)"
refused 2 'debug.allow' "$aspis" train small.yaml --quiet --out x --set debug.fault=nan_loss@17
"$aspis" train small.yaml --quiet --out nan-loss --resume auto >/dev/null
cmp $last nan-loss/checkpoints/step-00000120.h5 || fail "after the NaN, resumed: another result"
echo "ok: resumed after the NaN, the same result"

# A full disk: the limit on file size stands in for it. Training goes on until the saves were missed three times.
code=0
(ulimit -f 200 && "$aspis" train small.yaml --quiet --out full >/dev/null 2>err.txt) || code=$?
[ $code = 4 ] || fail "full disk: exit $code: $(cat err.txt)"
ls full/checkpoints | grep >/dev/null tmp && fail "full disk: a temporary file was left"
echo "ok: 4: $(tail -1 err.txt | cut -c1-150)"

if [ "$(id -u)" != 0 ]; then
  mkdir locked && chmod 555 locked
  refused 3 'locked' "$aspis" train small.yaml --quiet --out locked/run
fi
refused 3 '/proc/nowhere' "$aspis" train small.yaml --quiet --out /proc/nowhere

# A token outside the vocabulary, on the way into score.
refused 2 '--tokens' "$aspis" score run
refused 3 'tokens.h5' "$aspis" score run --tokens tokens.h5 --out scores.h5
refused 2 '--out and --tokens both name ./tokens.h5' "$aspis" score run --tokens ./tokens.h5 --out ./tokens.h5
echo "their tokens" >tokens.txt
ln tokens.txt linked.txt
refused 2 '--out and --tokens' "$aspis" score run --tokens tokens.txt --out linked.txt
refused 2 '--state-out and --tokens' "$aspis" score run --tokens tokens.txt --out scores.h5 --state-out tokens.txt
[ "$(cat tokens.txt)" = "their tokens" ] || fail "score wrote over its input"

# ---- series: the line, the column and what to do

hours 300 >good.csv
# series CODE PHRASE SED [OPTION...]: good.csv changed by SED.
series() {
  sed "$3" good.csv >hours.csv
  refused "$1" "$2" "$aspis" train hours.yaml --quiet --out series "${@:4}"
}
cell='11s/,[^,]*,'
series 3 'line 11, column load: found "abc", expected a number' "$cell/,abc,/"
series 3 'line 11, column load: found "1e400", expected a finite number' "$cell/,1e400,/"
series 3 'line 11: found 4 cells, expected 3 as in line 1; make all rows equally long' '11s/$/,7/'
series 3 'hours.csv: line 11: found a blank line, expected 3 cells as in line 1; remove it' '11s/.*//'
series 3 'line 11: found 2 cells, expected 3' '11s/,[^,]*$//'
series 3 'line 11, column load: found no value, the first of 1 missing; put values in, or set data.missing: ffill' "$cell/,NaN,/"
series 3 'line 2, column load: found no value and none above to repeat' '2s/,[^,]*,/,,/' --set data.missing=ffill
series 3 'column heat: found the value 4 in all 180 rows of the training part' '2,$s/[^,]*$/4/'
series 3 'found 12 rows in the training part (of 20), expected at least model.context + model.horizon = 30' '22,$d'
series 3 'found no rows, expected numbers' '2,$d'
series 3 'the file is empty' d
series 3 'data.borders: found 2021-01-01, expected a date inside of' '' --set data.borders=[2020-01-05,2020-01-08,2021-01-01]
series 3 'expected at least 14400: 20 months of 30 days' '' --set data.borders=[ett]
series 3 'found 3 rows in the test part (of 300), expected at least model.horizon = 6' '' --set data.split.train=0.7 --set data.split.test=0.01
series 3 'data.target: found hat, expected a column of' '' --set data.target=hat --set data.features=S
series 3 'data.columns: found cold, expected a column of' '' --set data.columns=[load,cold]
series 3 'found no column when among its 3, expected that of the dates' '' --set data.date_column=when
series 3 'line 12, column date: found "2020-01-01 09:00:00", expected a date after 2020-01-01 10:00:00 of the row above; sort the rows' \
  '11{h;d};12G'
series 3 'line 12, column date: found "2020-01-01 09:00:00", expected a date after 2020-01-01 09:00:00 of the row above; remove one' 11p
series 3 'line 11, column date: found 2020-01-01 10:00:00, expected 2020-01-01 09:00:00, 1 hour after' 11d
series 3 'line 11, column date: found "2020-02-31 09:00:00", expected a date' '11s/01-01/02-31/'
series 3 'line 2, column load: found "100,0000", expected a decimal point' 's/,/;/g;s/\./,/g'
series 3 'line 11, column load: found "112.6253,-6.2574", expected a closing quote' '11s/,/,"/'
series 3 'columns 2 and 3 are both called heat' '1s/load/heat/'

# What is well meant gives what the plain file gives.
same() { # NAME SED [OPTION...]
  sed "$2" good.csv >hours.csv
  "$aspis" train hours.yaml --quiet --out "as-$1" "${@:3}" >out.txt 2>err.txt || fail "$1: $(cat err.txt)"
  cmp out.txt plain.txt || fail "$1: $(cat out.txt), of the plain file $(cat plain.txt)"
}
cp good.csv hours.csv
"$aspis" train hours.yaml --quiet --out as-plain >plain.txt
same semicolons 's/,/;/g'
same tabs 's/,/\t/g'
same named-delimiter 's/,/;/g' --set 'data.delimiter=;'
same quoted 's/,\([^,]*\),/,"\1",/'
same bom '1s/^/\xef\xbb\xbf/'
same crlf 's/$/\r/'
printf '%s' "$(cat good.csv)" >hours.csv
"$aspis" train hours.yaml --quiet --out as-no-newline >out.txt && cmp out.txt plain.txt || fail "no newline at the end"
same dates-by-name '' --set data.date_column=date
same dates-by-position '' --set data.date_column=1
for missing in ffill mask; do
  sed "$cell/,,/" good.csv >hours.csv
  "$aspis" train hours.yaml --quiet --out "missing-$missing" --set data.missing=$missing >/dev/null || fail "data.missing: $missing"
done
echo "ok: series"
