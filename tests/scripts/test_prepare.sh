#!/usr/bin/env bash
# From text to a trained model and back to text: a tokenizer trained, shards made of two texts, a mixture of them trained (packed and in
# rows that go on, too), scored and resumed to the same bytes; kill -9 in the middle of prepare; and what is refused.
source "$(dirname "$0")/common.sh"

cat "$source_dir"/data/*.c >code.txt
cat "$source_dir"/docs/*.md >prose.txt
"$aspis" prepare code.txt prose.txt --train-bpe 600 --out tokenizer.json >/dev/null || fail "prepare --train-bpe"
"$aspis" prepare code.txt --tokenizer tokenizer.json --out code >/dev/null || fail "prepare code"
"$aspis" prepare prose.txt --tokenizer tokenizer.json --out prose --end-token '<|endoftext|>' >/dev/null || fail "prepare prose"
[[ $("$aspis" inspect code) == *"all hashes verified"*"vocabulary   600"* ]] || fail "inspect of shards"
cat >c.yaml <<'YAML'
name: mix
model: {d_model: 32, n_layer: 1, ssm_cfg: {layer: Mamba3, d_state: 16, headdim: 16}}
data: {kind: shards, shards: [code, prose], weights: [2, 1], seq_len: 32}
train: {steps: 12, batch_size: 4, save_every: 6, eval_every: 12, eval_batches: 2, keep: 2}
YAML
for variant in whole-rows whole-packed whole; do
  parts=${variant/whole/parts} set=()
  case $variant in
  whole-rows) set=(--set data.pack=true --set data.tbptt.segment=16) ;;
  whole-packed) set=(--set data.pack=true) ;; # few documents, which a kernel cuts finer than planned sequences
  esac
  "$aspis" train c.yaml --quiet --out $variant "${set[@]}" >/dev/null || fail "train $variant"
  cp -r $variant $parts
  rm $parts/checkpoints/step-00000012.h5 $parts/checkpoints/best.h5
  "$aspis" train c.yaml --quiet --out $parts --resume auto "${set[@]}" >/dev/null || fail "resume $variant"
  cmp $variant/checkpoints/step-00000012.h5 $parts/checkpoints/step-00000012.h5 || fail "$variant: resumed to other bytes"
done
[[ $("$aspis" eval whole --json --quiet) == *'"bits_per_byte"'* ]] || fail "eval"
mv tokenizer.json elsewhere.json # the run has its own
"$aspis" generate whole --prompt "static Status" --max-tokens 8 >/dev/null || fail "generate"
echo "ok: train, resume, eval, generate from shards"

# Killed somewhere, run again: the same files.
"$aspis" prepare code.txt prose.txt --out undisturbed --tokenizer elsewhere.json --shard-mib 1 >/dev/null
for delay in 0.01 0.03 0.06; do
  rm -rf killed
  "$aspis" prepare code.txt prose.txt --out killed --tokenizer elsewhere.json --shard-mib 1 >/dev/null &
  sleep $delay
  kill -9 $! 2>/dev/null || true
  wait $! 2>/dev/null || true
  "$aspis" prepare code.txt prose.txt --out killed --tokenizer elsewhere.json --shard-mib 1 >/dev/null 2>told.txt ||
    [[ $(cat told.txt) == *"is finished"* ]] || fail "after kill -9: $(cat told.txt)"
  rm -f killed/*.tmp*
  diff -r undisturbed killed || fail "after kill -9 at $delay: other files"
done
echo "ok: kill -9"

"$aspis" convert whole weights >/dev/null || fail "convert"
[ "$("$aspis" generate whole --prompt "static Status" --max-tokens 8)" = "$("$aspis" generate weights --prompt "static Status" --max-tokens 8)" ] ||
  fail "the tokenizer beside the weights is another one"
# What a tokenizer.json puts before a text: from a weights directory as transformers does, from a run as its texts had it.
greedy() { "$aspis" generate "$@" --max-tokens 8 --temperature 0; }
sed 's/"post_processor":{[^}]*}/"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<|endoftext|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<|endoftext|>":{"id":"<|endoftext|>","ids":[0],"tokens":["<|endoftext|>"]}}}/' \
  elsewhere.json >begins.json
cp begins.json weights/tokenizer.json
ids=$("$aspis" generate weights --prompt-tokens 0 --state-out s.h5 --max-tokens 0 --json && greedy weights --state-in s.h5 --prompt "static Status" --json)
with=$(greedy weights --prompt "static Status") without=$(greedy weights --prompt "static Status" --special-tokens no)
[ "$without" = "$(greedy whole --prompt "static Status")" ] || fail "special tokens: '$with' and '$without'"
# What was read differs, whatever a model of a few steps makes of it.
"$aspis" generate weights --prompt "static Status" --max-tokens 0 --state-out with.h5 >/dev/null
"$aspis" generate weights --prompt "static Status" --max-tokens 0 --state-out without.h5 --special-tokens no >/dev/null
cmp -s with.h5 without.h5 && fail "special tokens: the same state with and without"
[[ $with == "static Status"* ]] || fail "special tokens are told: $with"
[[ $ids == *"$(greedy weights --prompt "static Status" --json)" ]] || fail "special tokens: $ids, expected those behind the state of token 0"
[ "$(greedy weights --prompt "static Status" --state-in s.h5 --special-tokens no)" = "$(greedy weights --prompt "static Status" --state-in s.h5)" ] ||
  fail "special tokens in the middle of a text"
"$aspis" prepare code.txt --tokenizer begins.json --out begins --special-tokens >/dev/null
"$aspis" train c.yaml --quiet --out begins-run --set data.shards=[begins] --set data.weights=[] --set data.special_tokens=true --set train.steps=1 >/dev/null
for said in yes no; do
  "$aspis" generate begins-run --prompt "static" --max-tokens 0 --state-out $said.h5 --special-tokens $said >/dev/null
done
"$aspis" generate begins-run --prompt "static" --max-tokens 0 --state-out unsaid.h5 >/dev/null
cmp -s unsaid.h5 yes.h5 || fail "a run of texts with special tokens"
cmp -s unsaid.h5 no.h5 && fail "--special-tokens no"
told=$("$aspis" train c.yaml --out named --set data.path=[code.txt] --set train.steps=1 2>&1)
[[ $told == *"data.path is not read: data.kind is shards"* ]] || fail "a text beside shards is passed over without a word: $told"
told=$("$aspis" train c.yaml --out named-too --set data.kind=text --set data.path=[code.txt] --set data.weights=[] --set train.steps=1 2>&1)
[[ $told == *"data.shards is not read: data.kind is not shards"* && $told != *"data.path is not read"* ]] || fail "shards beside a text: $told"
refused 3 "begins: was prepared with --special-tokens" "$aspis" train c.yaml --out y --set data.shards=[begins] --set data.weights=[]
refused 2 "expected a tokenizer.json" "$aspis" plan c.yaml --set data.kind=text --set data.path=[code.txt] --set data.special_tokens=true
refused 2 "--special-tokens: found \"maybe\"" "$aspis" generate weights --special-tokens maybe
echo "ok: special tokens"
"$aspis" prepare code.txt --train-bpe 700 --out weights/tokenizer.json >/dev/null
refused 4 "has 700 tokens, the model 600 rows" "$aspis" generate weights --prompt x
refused 2 "expected one of them" "$aspis" prepare code.txt --train-bpe 300 --tokenizer byte --out z.json
refused 2 "--out: found nothing" "$aspis" prepare code.txt
refused 3 "nothing.txt: cannot read" "$aspis" prepare nothing.txt --out x
refused 2 "expected byte or a tokenizer.json" "$aspis" prepare code.txt --out x --tokenizer char
refused 3 "absent.json: cannot read" "$aspis" prepare code.txt --out x --tokenizer absent.json
refused 2 "expected one of the tokenizer's added_tokens" "$aspis" prepare code.txt --out x --tokenizer elsewhere.json --end-token '<eos>'
refused 2 "is finished" "$aspis" prepare code.txt --out code --tokenizer elsewhere.json
refused 2 "beside data.kind: shards" "$aspis" train c.yaml --out y --set data.pack=true --set data.document_end=x
refused 2 "expected folders made by aspis prepare" "$aspis" train c.yaml --out y --set data.shards=[] --set data.weights=[]
refused 3 "not a folder of shards" "$aspis" train c.yaml --out y --set data.shards=[code,absent]
echo "ok: what is refused"
