#!/usr/bin/env bash
# Bad input ends in one clear line and the documented exit code, and nothing is lost.
source "$(dirname "$0")/common.sh"

# expect CODE PHRASE COMMAND...: exit code, a phrase in stderr, one line of it (or the number in LINES_WANTED).
expect() {
  local code=0 wanted=$1 phrase=$2
  shift 2
  "$@" >out.txt 2>err.txt || code=$?
  [ $code = "$wanted" ] || fail "$*: exit $code, expected $wanted: $(cat err.txt)"
  grep -qF -- "$phrase" err.txt || fail "$*: expected \"$phrase\", found: $(cat err.txt)"
  local lines
  lines=$(grep -c '^aspis: ' err.txt)
  [ "$lines" = "${LINES_WANTED:-1}" ] || fail "$*: $lines lines: $(cat err.txt)"
  echo "ok: $code: $(tail -1 err.txt | cut -c1-150)"
}

train="$aspis train small.yaml --quiet --out run"

expect 2 'did you mean "optim.lr"' $train --set optim.lrr=1
LINES_WANTED=2 expect 2 'model.d_model' $train --set optim.lrr=1 --set model.d_model=-3
printf 'name: [unclosed\n' >broken.yaml
expect 2 'broken.yaml:' "$aspis" train broken.yaml
expect 2 'missing.yaml' "$aspis" train missing.yaml
expect 2 'virtual_ranks' $train --set train.virtual_ranks=3
expect 7 'lower data.seq_len' "$aspis" plan small.yaml --device-memory 1M
expect 2 'unknown command' "$aspis" tarin small.yaml

: >empty.txt
expect 3 'empty.txt' $train --set data.path=[empty.txt]
expect 3 'nowhere.txt' $train --set data.path=[nowhere.txt]
expect 3 'seq_len' $train --set data.seq_len=40000
printf 'caf\xff\n' >latin1.txt
expect 3 'UTF-8' $train --set data.path=[latin1.txt]

$train >/dev/null
last=run/checkpoints/step-00000120.h5
printf 'Ωmega %.0s' $(seq 2000) >greek.txt
expect 3 'greek.txt' "$aspis" eval run --set data.path=[greek.txt]
expect 3 'is not among' "$aspis" generate run --prompt 'Ω' --max-tokens 2
expect 3 'vocabulary' "$aspis" generate run --prompt-tokens 9999 --max-tokens 2

head -c 3000 $last >short.h5
expect 4 'short.h5' "$aspis" eval short.h5
echo 'not a checkpoint' >foreign.h5
expect 4 'foreign.h5' "$aspis" eval foreign.h5
expect 4 'nothing-here' "$aspis" eval nothing-here
expect 4 'another model' "$aspis" train small.yaml --quiet --out run --resume auto --set model.n_layer=3 --set train.steps=50

# A damaged newest checkpoint is passed over for the one before, and said so.
cp -r run damaged
printf '\377' | dd of=damaged/checkpoints/step-00000120.h5 bs=1 seek=9000 conv=notrunc 2>/dev/null
"$aspis" train small.yaml --quiet --out damaged --resume auto >/dev/null 2>err.txt || fail "resume past a damaged checkpoint: $(cat err.txt)"
grep -q 'step-00000120' err.txt || fail "the damaged checkpoint was not named: $(cat err.txt)"
cmp $last damaged/checkpoints/step-00000120.h5 || fail "the resumed run differs"
echo "ok: a damaged checkpoint is passed over"

# NaN stops before the update, names step and tensor, and the weights are those of the step before.
nan="$aspis train small.yaml --quiet --set debug.allow=true"
expect 5 'step 17: the loss is' $nan --out nan-loss --set debug.fault=nan_loss@17
[ -e nan-loss/checkpoints/step-00000016.h5 ] || fail "the step before the NaN was not saved"
expect 5 'step 17: the gradient of backbone.' $nan --out nan-grad --set debug.fault=nan_grad@17
$nan --out nan-skip --set debug.fault=nan_grad@17 --set train.nonfinite=skip >/dev/null 2>err.txt || fail "skip: $(cat err.txt)"
grep -q 'step 17 skipped' err.txt || fail "the skipped step was not told: $(cat err.txt)"
expect 2 'debug.allow' "$aspis" train small.yaml --quiet --out x --set debug.fault=nan_loss@17
"$aspis" train small.yaml --quiet --out nan-loss --resume auto >/dev/null
cmp $last nan-loss/checkpoints/step-00000120.h5 || fail "after the NaN, resumed: another result"
echo "ok: resumed after the NaN, the same result"

# A full disk: the limit on file size stands in for it. Training goes on until the saves were missed three times.
code=0
(ulimit -f 200 && "$aspis" train small.yaml --quiet --out full >/dev/null 2>err.txt) || code=$?
[ $code = 4 ] || fail "full disk: exit $code: $(cat err.txt)"
ls full/checkpoints | grep -q tmp && fail "full disk: a temporary file was left"
echo "ok: 4: $(tail -1 err.txt | cut -c1-150)"

if [ "$(id -u)" != 0 ]; then
  mkdir locked && chmod 555 locked
  expect 3 'locked' "$aspis" train small.yaml --quiet --out locked/run
fi
expect 3 '/proc/nowhere' "$aspis" train small.yaml --quiet --out /proc/nowhere

# A token outside the vocabulary, on the way into score.
expect 2 '--tokens' "$aspis" score run
expect 3 'tokens.h5' "$aspis" score run --tokens tokens.h5 --out scores.h5
