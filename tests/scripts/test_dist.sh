#!/usr/bin/env bash
# Any number of ranks makes the bytes of one: F32 and BF16, Mamba-2 (with carried states), Mamba-3, a forecaster, shards in rows that go on through a hybrid; also when the number changes
# between kills, and when a run is stopped by a signal to the launcher or to one rank.
source "$(dirname "$0")/common.sh"
command -v mpirun >/dev/null && [ -e "$(dirname "$aspis")/libaspis_mpi.so" ] || { echo "skipped: built without MPI"; exit 0; }
export ASAN_OPTIONS=detect_leaks=0 # Open MPI's own
export OMP_NUM_THREADS=1           # ranks and single runs alike

short="--quiet --set train.steps=12 --set train.eval_every=6 --set train.save_every=4"
last=checkpoints/step-00000012.h5
launch() { local n=$1; shift; "$aspis" launch -n "$n" -- train "$@"; }
same() { # DIR DIR WHAT
  cmp "$1/$last" "$2/$last" || fail "$3: the final checkpoints differ"
  diff <(steady_metrics "$1") <(steady_metrics "$2") >/dev/null || fail "$3: the metrics differ"
}

cat >series.yaml <<'END'
name: series
seed: 5
model: {task: forecast, d_model: 16, n_layer: 1, context: 24, horizon: 8, ssm_cfg: {d_state: 8, headdim: 8, chunk_size: 8}}
data: {kind: series, generate: {task: trend_season, rows: 400, columns: 3}}
optim: {lr: 1.0e-3, warmup_steps: 2}
train: {steps: 12, batch_size: 16, virtual_ranks: 4, eval_every: 6, save_every: 4, log_every: 1}
END

variant() { # NAME CONFIG [SET]...
  local name=$1 config=$2 n
  shift 2
  "$aspis" train "$config" $short --out "$name-1" "$@" >"$name-1.txt" 2>err.txt || fail "$name: $(cat err.txt)"
  for n in $counts; do
    launch "$n" "$config" $short --out "$name-$n" "$@" >"$name-$n.txt" 2>err.txt || fail "$name on $n ranks: $(cat err.txt)"
    same "$name-1" "$name-$n" "$name on $n ranks"
    cmp "$name-1.txt" "$name-$n.txt" || fail "$name on $n ranks: another result on stdout"
  done
  echo "ok: $name: the same bytes on 1 $counts ranks"
}
counts="2 4" variant mamba3 small.yaml
if [ -z "${ASPIS_FEW:-}" ]; then # a sanitizer's build is slow
counts=4 variant mamba3-bf16 small.yaml --set dtype=bf16
counts=2 variant mamba2-bf16 small.yaml --set dtype=bf16 --set model.ssm_cfg.layer=Mamba2 --set data.tbptt.segment=16
head -c 6000 text.txt >one.txt
tail -c 6000 text.txt >two.txt
for text in one two; do "$aspis" prepare $text.txt --out shards-$text >/dev/null || fail "prepare $text"; done
counts=2 variant shards small.yaml --set data.kind=shards --set data.shards=[shards-one,shards-two] --set data.tbptt.segment=16 --set model.attn_layer_idx=[1] --set model.attn_cfg.num_heads=4
fi
counts=2 variant forecaster series.yaml

# The sum over ranks in pieces that go while backward does, or in one behind it: the same bytes. How much is summed when
# backward ends is the machine's affair; how much was handed on by then is not.
for n in ${ASPIS_FEW:-2 4}; do
  launch "$n" small.yaml --verbose ${short#--quiet} --out pieces-$n --set train.bucket_mb=0.004 >/dev/null 2>err.txt || fail "pieces on $n ranks: $(cat err.txt)"
  same mamba3-1 pieces-$n "pieces on $n ranks"
  read -r pieces percent < <(sed -nE 's/^gradients at step 12: .* in ([0-9]+) buckets; their sum was begun for ([0-9]+).*/\1 \2/p' err.txt) ||
    fail "pieces on $n ranks: not told: $(cat err.txt)"
  [ "$pieces" -ge 8 ] && [ "$percent" -ge 80 ] || fail "pieces on $n ranks: $pieces, $percent % of the bytes handed on before backward ended"
done
launch 2 small.yaml $short --out at-once --set train.bucket_mb=0 >/dev/null
same mamba3-1 at-once "all at once"
launch 2 small.yaml $short --out pieces-zero --set train.bucket_mb=0.004 --set train.zero=1 >/dev/null
same mamba3-1 pieces-zero "pieces, state split"
"$aspis" train small.yaml $short --out again-1 --set train.recompute=block >/dev/null
launch 2 small.yaml $short --out again-2 --set train.recompute=block --set train.bucket_mb=0.004 >/dev/null
same again-1 again-2 "pieces, layers made again"
echo "ok: gradients summed in pieces during backward: the same bytes, and most of them go before it ends"

# The optimiser's state split over ranks, in a run that is also resumed with it whole and split.
for type in f32 bf16; do
  [ $type = f32 ] && whole=mamba3-1 || whole=mamba3-bf16-1
  [ -d $whole ] || continue
  for n in $([ $type = f32 ] && echo 2 4 || echo 4); do
    launch $n small.yaml $short --set dtype=$type --out zero-$type-$n --set train.zero=1 >/dev/null 2>err.txt || fail "zero, $type, $n ranks: $(cat err.txt)"
    same $whole zero-$type-$n "train.zero, $type, $n ranks"
  done
  code=0
  launch 4 small.yaml $short --set dtype=$type --out zero-$type --set train.zero=1 --set debug.allow=true \
    --set 'debug.fault="kill@6,rank=3"' >/dev/null 2>&1 || code=$?
  [ $code = 6 ] || fail "zero, $type: exit $code"
  launch 2 small.yaml $short --set dtype=$type --out zero-$type --resume auto --set train.zero=1 --set debug.allow=true \
    --set 'debug.fault="kill@10"' >/dev/null 2>&1 || true
  "$aspis" train small.yaml $short --set dtype=$type --out zero-$type --resume auto >/dev/null 2>&1
  same $whole zero-$type "train.zero, $type, on 4 and 2 ranks, killed, ended by 1"
  echo "ok: train.zero, $type: the same bytes split over ranks, and from 4 to 2 to one rank"
done

# mpirun by hand; and as many ranks as do not divide.
mpirun -n 2 --bind-to none --oversubscribe --allow-run-as-root "$aspis" train small.yaml $short --out by-hand >/dev/null
same mamba3-1 by-hand "mpirun by hand"
code=0
launch 3 small.yaml $short --out three 2>err.txt || code=$?
[ $code = 2 ] && [ "$(grep -c 'found 3 ranks, expected a divisor of train.virtual_ranks = 4' err.txt)" = 1 ] &&
  [ "$(wc -l <err.txt)" = 1 ] || fail "three ranks: exit $code, $(cat err.txt)"
echo "ok: mpirun by hand; three ranks are refused in one line"

# The number of ranks changes between kills.
from=0
for n in ${ASPIS_FEW:-1 4 2 1}; do
  from=$((from + 3))
  code=0
  launch $n small.yaml $short --out elastic --resume auto --set train.save_every=1 --set debug.allow=true \
    --set "debug.fault=kill@$from,rank=$((n - 1))" >/dev/null 2>err.txt || code=$?
  [ $code != 0 ] || [ $from -ge 12 ] || fail "elastic on $n ranks: the kill in step $from came to nothing"
done
launch 2 small.yaml $short --out elastic --resume auto >/dev/null
same mamba3-1 elastic "1, 4, 2, 1 ranks with kills"
echo "ok: 1, 4, 2, 1 ranks with kills between: the same bytes"
