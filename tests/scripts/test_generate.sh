#!/bin/bash
# aspis generate as a user meets it, and the programs of examples/: a small model trained here continues text; states in files
# carry a text from call to call; samples, stop strings and prompts together; mistakes in one line.
source "$(dirname "$0")/common.sh"
build=$(dirname "$aspis")

"$aspis" train small.yaml --out run --quiet --set train.steps=60 --set train.save_every=60 --set train.eval_every=60 >/dev/null
greedy() { "$aspis" generate run --temperature 0 "$@"; }

# The state in a file is the text so far, whoever wrote it.
whole=$(greedy --prompt "the king speaks" --max-tokens 30 --json)
greedy --prompt "the king" --max-tokens 0 --state-out s.h5 >/dev/null
[ "$(greedy --prompt " speaks" --max-tokens 30 --state-in s.h5 --json)" = "$whole" ] || fail "--state-in: another text"
[ "$(greedy --prompt "the king speaks" --max-tokens 30 --no-cache --json)" = "$whole" ] || fail "--no-cache: another text"
echo "ok: states"

# Samples: the first of several is the one of its own, others differ, and all repeat with the seed.
"$aspis" generate run --prompt "the " --samples 3 --seed 5 --max-tokens 20 --json >three.txt
"$aspis" generate run --prompt "the " --samples 3 --seed 5 --max-tokens 20 --json | cmp - three.txt || fail "samples: other ones"
one=$("$aspis" generate run --prompt "the " --seed 5 --max-tokens 20 --json)
grep -qF "${one#\{}" <(sed 's/"prompt": 0, //g; s/{"samples": \[{//; s/},.*/}/' three.txt) || fail "the first sample is not $one: $(cat three.txt)"
[ "$(grep -o '"tokens": \[[^]]*\]' three.txt | sort -u | wc -l)" = 3 ] || fail "samples: $(cat three.txt)"
[ "$("$aspis" generate run --prompt "the " --prompt "a q" --max-tokens 3 | grep -c '^=== ')" = 2 ] || fail "two prompts"
echo "ok: samples"

# A stop string ends the text before it, and is never told in part.
text=$(greedy --prompt "the" --max-tokens 60)
stop=${text:20:3}
before=${text%%"$stop"*}
[ "$(greedy --prompt "the" --max-tokens 60 --stop "$stop")" = "${text:0:3}$(awk -v t="${text:3}" -v s="$stop" 'BEGIN { i = index(t, s); print substr(t, 1, i - 1) }')" ] ||
  fail "--stop '$stop' of '$text' (first at '$before')"
echo "ok: stop strings"

"$aspis" train small.yaml --out other --quiet --set train.steps=6 --set model.ssm_cfg.d_state=8 >/dev/null
"$aspis" generate other --max-tokens 1 --state-out other.h5 >/dev/null
refused 3 'the state of another model' "$aspis" generate run --state-in other.h5
refused 3 'nowhere.h5' "$aspis" generate run --state-in nowhere.h5
refused 2 '--state-out: found 2 sequences' "$aspis" generate run --samples 2 --state-out s2.h5
refused 2 '--no-cache' "$aspis" generate run --samples 2 --no-cache
refused 2 '--stop: found an empty text' "$aspis" generate run --stop ''
refused 3 'outside the vocabulary' "$aspis" generate run --prompt-tokens 5,4000
refused 2 'dtype' "$aspis" generate run --dtype f16
echo "ok: refused"

# The examples do what their heads say.
continued=$("$build/streaming_state" run stream.h5 "the king speaks")
[ "$("$aspis" generate run --prompt "the king speaks" --temperature 0 --max-tokens 40)" = "the king speaks$continued" ] ||
  fail "streaming_state: '$continued'"
[ "$("$build/streaming_state" run stream.h5 " and")" != "$("$build/streaming_state" run fresh.h5 " and")" ] || fail "streaming_state forgets"
if command -v python3 >/dev/null && [[ $(ldd "$build/libaspis.so") != *asan* ]]; then
  python3 "$source_dir/examples/hidden_states.py" "$build/libaspis.so" run "the king" >hidden.txt || fail "hidden_states.py"
  [ "$(grep -c '^layer' hidden.txt)" = 2 ] || fail "hidden_states.py: $(cat hidden.txt)"
fi
echo "ok: examples"
