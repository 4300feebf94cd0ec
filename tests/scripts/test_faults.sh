#!/usr/bin/env bash
# Ranks that die, hang, crawl, stand still, differ or make NaN, and signals: how each ends, in how many seconds, and that what
# is left is whole: resumed by one rank, the run ends with the bytes of one that nothing happened to.
# With ASPIS_FAULTS=N every fault is planted N times and the table of docs/reliability.md is written to table.md.
source "$(dirname "$0")/common.sh"
command -v mpirun >/dev/null && [ -e "$(dirname "$aspis")/libaspis_mpi.so" ] || { echo "skipped: built without MPI"; exit 0; }
export ASAN_OPTIONS=detect_leaks=0 # Open MPI's own
export OMP_NUM_THREADS=1
repeats=${ASPIS_FAULTS:-1}
watchdog=2

sed -i "s/^train: .*/train: {steps: 12, batch_size: 8, virtual_ranks: 4, eval_every: 6, eval_batches: 2, save_every: 3, log_every: 1, watchdog: $watchdog.0, bucket_mb: 0.004}/" small.yaml
last=checkpoints/step-00000012.h5
"$aspis" train small.yaml --quiet --out whole >/dev/null

printf '%s\n' "| fault | of | ended with | the rest ended after | what it says | lost |" "| --- | --- | --- | --- | --- | --- |" >table.md

launch() { "$aspis" launch -n "$ranks" -- train small.yaml --quiet --out run "$@"; }
now() { date +%s.%N; }
calc() { awk "BEGIN { printf \"%.1f\", $* }"; }
# Seconds between the last logged step and now: of a planted fault, a few milliseconds more than since it struck.
since_last_step() { calc "$(now) - $(stat -c %.Y run/metrics.jsonl 2>/dev/null || echo "$started")"; }
# The test's own ranks: another test may train such a config beside this one.
ranks_of_run() {
  for process in $(pgrep -f "^$aspis train small.yaml --quiet --out run"); do
    [ "$(readlink "/proc/$process/cwd")" != "$(pwd -P)" ] || echo "$process"
  done
}
nobody_left() {
  for _ in $(seq 50); do
    [ -z "$(ranks_of_run)" ] && return
    sleep 0.1
  done
  fail "$1: processes are left: $(ranks_of_run)"
}
status_field() { sed -nE "s/^ *\"$1\": \"?([^\",]*)\"?,?$/\1/p" run/status.json; }
# As one rank, from what is left, to the same end.
comes_to_the_same_end() {
  "$aspis" train small.yaml --quiet --out run --resume auto >/dev/null 2>err.txt || fail "$1: resuming: $(cat err.txt)"
  cmp whole/$last run/$last || fail "$1: resumed, it ends with other bytes"
}

# fault WHAT RANKS CODE SECONDS MESSAGE [SET]...: ended with CODE within SECONDS of the fault, saying MESSAGE in one line.
fault() {
  local what=$1 wanted=$3 most=$4 message=$5 code seconds least=1e9 longest=0 said
  ranks=$2
  shift 5
  for _ in $(seq "$repeats"); do
    rm -rf run
    started=$(now) code=0
    launch --set debug.allow=true "$@" >/dev/null 2>err.txt || code=$?
    seconds=$(since_last_step)
    least=$(calc "($seconds < $least ? $seconds : $least)") longest=$(calc "($seconds > $longest ? $seconds : $longest)")
    sed -i '/^\[.*:[0-9]*\] Read -1, /d' err.txt # Open MPI's, of a stopped rank that wakes when mpirun ends it
    [ $code = "$wanted" ] || fail "$what: exit $code, expected $wanted: $(cat err.txt)"
    awk "BEGIN { exit !($seconds <= $most) }" || fail "$what: the rest ended after $seconds s, expected at most $most"
    [ "$(grep -cE "$message" err.txt)" = 1 ] && [ "$(wc -l <err.txt)" = 1 ] || fail "$what: expected one line with \"$message\": $(cat err.txt)"
    [ -e run/status.json ] && { [ "$(status_field state)" = failed ] && [ "$(status_field exit_code)" = $code ] || fail "$what: $(cat run/status.json)"; }
    said=$(sed -E 's/^aspis: //; s/ on [^ ]+ / on HOST /; s/ on [^ ]+:/ on HOST:/; s/; (all ranks|nothing was|stopped).*//; s/[0-9.]+ s ago/... s ago/' err.txt)
    nobody_left "$what"
    comes_to_the_same_end "$what"
  done
  echo "ok: $what: exit $code, $least to $longest s"
  printf '| %s | %d | exit %d | %s to %s s | `%s` | no byte; at most `save_every` steps are made again |\n' "$what" "$repeats" $code "$least" "$longest" "$said" >>table.md
}
# goes_on WHAT RANKS [SET]...: nothing comes of it.
goes_on() {
  local what=$1
  ranks=$2
  shift 2
  rm -rf run
  launch --set debug.allow=true "$@" >/dev/null 2>err.txt || fail "$what: exit $?: $(cat err.txt)"
  echo "ok: $what: goes on"
  printf '| %s | 1 | goes on to its end | | | nothing |\n' "$what" >>table.md
}

died='died: its connection closed.* in step'
if [ -z "${ASPIS_FEW:-}" ]; then # a sanitizer's build is slow
fault "SIGKILL at the start" 2 6 5 "rank 1 on [^ ]+ $died 1, phase start" --set 'debug.fault="kill@1,rank=1,phase=start"'
fault "SIGKILL in the gradient" 2 6 5 "rank 1 on [^ ]+ $died 8, phase gradient" --set 'debug.fault="kill@8,rank=1"'
fault "SIGKILL in the sum of gradients, four ranks" 4 6 5 "rank 2 on [^ ]+ $died 8, phase reduce" --set 'debug.fault="kill@8,rank=2,phase=reduce"'
fi
fault "SIGKILL of rank 0 in a save" 2 6 5 "rank 0 on [^ ]+ $died 7, phase (save|wait)" --set 'debug.fault="kill@7,phase=save"'
hangs='hangs: its last sign of life came, [0-9.]+ s ago, in step 8, phase gradient'
fault "SIGSTOP" 2 6 $((watchdog + 2)) "rank 1 on [^ ]+ $hangs" --set 'debug.fault="stop@8,rank=1"'
if [ -z "${ASPIS_FEW:-}" ]; then
fault "SIGSTOP of rank 0" 2 6 $((watchdog + 2)) "rank 0 on [^ ]+ $hangs" --set 'debug.fault="stop@8"'
fault "a rank that lives and stands still (train.stall 1 s)" 2 6 5 'rank 1 on [^ ]+ stands still: .* in step 8, phase gradient' --set 'debug.fault="slow@8,rank=1,seconds=60"' --set train.stall=1
fault "a rank with another weight" 2 6 5 'rank 1 on [^ ]+: after step 8 its weights differ' --set 'debug.fault="diverge@8,rank=1"' --set train.compare_every=1
fault "NaN in a gradient of one rank" 2 5 5 'step 8: the gradient of backbone.embedding.weight is not finite .*stopped before the update' --set 'debug.fault="nan_grad@8,rank=1"'
goes_on "a slow rank, $((watchdog + 1)) s a step" 2 --set "debug.fault=\"slow@12,rank=1,seconds=$((watchdog + 1))\""
goes_on "NaN in a gradient of one rank, train.nonfinite: skip" 2 --set 'debug.fault="nan_grad@8,rank=1"' --set train.nonfinite=skip
[ "$(grep -c 'step 8 skipped: the gradient of backbone.embedding.weight' err.txt)" = 1 ] || fail "skip: $(cat err.txt)"

fi

# Signals: to the launcher, to a rank other than 0; the run is longer, so that they come in its middle.
signal() { # SIGNAL TO
  local what="$1 to $2" pid code=0
  rm -rf run
  "$aspis" launch -n 2 -- train small.yaml --quiet --out run --set train.steps=100000 --set train.eval_every=0 \
    --set train.save_every=0 >/dev/null 2>err.txt &
  pid=$!
  until grep -qs '"step":5,' run/metrics.jsonl; do sleep 0.05; done
  for rank in $(ranks_of_run); do # oneDNN bears no handler (train/stop.c)
    [ $((0x$(sed -n 's/^SigCgt:\s*//p' /proc/$rank/status) & 0x4202)) = 0 ] || fail "$what: a handler takes INT, TERM or USR1"
  done
  # mpirun starts ranks in order
  [ "$2" = "the launcher" ] || pid=$(ranks_of_run | tail -1)
  kill -"$1" "$pid"
  wait $! || code=$?
  [ $code = 75 ] && [ "$(wc -l <err.txt)" = 1 ] && [ "$(grep -c 'stopped after step' err.txt)" = 1 ] || fail "$what: exit $code: $(cat err.txt)"
  [ "$(status_field state)" = stopped ] || fail "$what: $(cat run/status.json)"
  [ -e "run/checkpoints/step-$(printf %08d "$(status_field step | head -1)").h5" ] || fail "$what: no checkpoint of the step it stopped after"
  nobody_left "$what"
  echo "ok: $what: saved, exit 75"
  printf '| %s | 1 | saved, exit 75 | | | nothing |\n' "$what" >>table.md
}
signal TERM "the launcher"
[ -n "${ASPIS_FEW:-}" ] || signal INT "the launcher"
signal TERM "a rank"

code=0
ranks=2 launch --set 'debug.fault="kill@8"' >/dev/null 2>err.txt || code=$?
[ $code = 2 ] && [ "$(grep -c 'debug.allow' err.txt)" = 1 ] || fail "a fault without debug.allow: exit $code: $(cat err.txt)"
echo "ok: a fault without debug.allow is refused"
[ -z "${ASPIS_FAULTS:-}" ] || cp table.md "$OLDPWD/table.md"
