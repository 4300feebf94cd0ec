#!/usr/bin/env bash
# What one command writes another reads: weights converted from a run score and generate as the run does, and are trained
# on from; JSON stays JSON; what cannot be done is said in one line.
source "$(dirname "$0")/common.sh"

same() { [ "$2" = "$3" ] || fail "$1: \"$2\" and \"$3\""; }
last=checkpoints/step-00000030.h5

for variant in "--set model.ssm_cfg.layer=Mamba2 --set model.tie_embeddings=false" ""; do
  rm -rf run weights again onward from-file
  "$aspis" train small.yaml --quiet --out run --set train.steps=30 $variant >/dev/null

  # The same weights, whichever form MODEL has.
  summary=$("$aspis" convert run weights)
  [[ $summary =~ ^[0-9]+\ tensors\ \|\ [0-9]+\ parameters ]] || fail "convert: \"$summary\""
  [ "$(ls weights | tr '\n' ' ')" = "config.json model.safetensors " ] || fail "convert: $(ls weights)"
  "$aspis" convert run/$last again >/dev/null
  "$aspis" convert weights onward >/dev/null
  for copy in again onward; do diff -r weights $copy || fail "convert of a checkpoint or of weights: $copy differs"; done

  # As a checkpoint: the same logits, by every way of computing them.
  told=$("$aspis" convert weights copy.h5 --to h5 --force --verify) || fail "convert --verify: $told"
  [[ $told == *"0 missing, 0 unexpected"*"scan and single steps"*"scan and definition"* ]] || fail "convert --verify: $told"
  same "generate from an .h5" "$("$aspis" generate run --prompt-tokens 3,1 --max-tokens 20 --json)" \
    "$("$aspis" generate copy.h5 --prompt-tokens 3,1 --max-tokens 20 --json)"

  same "eval" "$("$aspis" eval run --json --quiet)" "$("$aspis" eval weights --config small.yaml --json --quiet)"
  prompt="--prompt-tokens 3,1,2 --max-tokens 20 --json"
  for how in "--temperature 0" "--temperature 0.9 --top-k 5 --seed 4"; do
    same "generate $how" "$("$aspis" generate run $prompt $how)" "$("$aspis" generate weights $prompt $how)"
  done

  # Training from them starts at them: a step with no learning to speak of leaves them as they are.
  still="--quiet --set train.steps=1 --set optim.warmup_steps=0 --set optim.lr=1e-30 $variant"
  "$aspis" train small.yaml $still --out onward-run --set model.init_from=weights >/dev/null
  "$aspis" train small.yaml $still --out file-run --set model.init_from=run/$last >/dev/null
  "$aspis" train small.yaml $still --out from-run --set model.init_from=run >/dev/null
  for start in onward-run file-run from-run; do
    "$aspis" convert $start from-file --force >/dev/null
    cmp weights/model.safetensors from-file/model.safetensors || fail "init_from: $start did not start at the weights"
    rm -r $start
  done
  # The model is the weights': a config without sizes is enough, and one with others is refused.
  sed '/^model:/,/^data:/{/^data:/!d}' small.yaml >sizeless.yaml
  "$aspis" train sizeless.yaml ${still% $variant} --out sizeless-run --set model.init_from=weights >/dev/null 2>err.txt ||
    fail "init_from without sizes: $(cat err.txt)"
  "$aspis" convert sizeless-run from-file --force >/dev/null
  cmp weights/model.safetensors from-file/model.safetensors || fail "init_from without sizes: other weights"
  refused 2 'model.d_model: found 48, expected 32, which the weights of model.init_from' \
    "$aspis" train sizeless.yaml $still --out elsewhere --set model.init_from=weights --set model.d_model=48
  mv weights weights-elsewhere
  rm -r from-file
  "$aspis" convert sizeless-run from-file >/dev/null || fail "a run needs the weights it started from"
  "$aspis" train sizeless-run/config.yaml $still --out sizeless-run --resume auto >/dev/null || fail "resume needs them"
  refused 2 'model.init_from: ' "$aspis" train sizeless.yaml $still --out elsewhere --set model.init_from=weights
  mv weights-elsewhere weights
  rm -r sizeless-run
  echo "ok: convert, eval, generate, init_from ${variant:-Mamba3}"
done

# As Hugging Face has a Mamba-2, from a config that can be said there.
plain="--set model.ssm_cfg.layer=Mamba2 --set model.d_intermediate=0 --set model.attn_layer_idx=[]"
"$aspis" train small.yaml --quiet --out plain --set train.steps=5 $plain >/dev/null
"$aspis" convert plain hf --to hf >/dev/null || fail "convert --to hf"
same "generate from Hugging Face's" "$("$aspis" generate plain --prompt-tokens 3,1 --max-tokens 20 --json)" \
  "$("$aspis" generate hf --prompt-tokens 3,1 --max-tokens 20 --json)"
"$aspis" convert hf back --to hf >/dev/null
diff -r hf back || fail "Hugging Face's, there and back: other weights"

# A bf16 run: what is converted are its exact float32 masters.
"$aspis" train small.yaml --quiet --out narrow --set train.steps=10 --set dtype=bf16 >/dev/null
"$aspis" convert narrow narrow-weights >/dev/null
for type in bf16 f32; do
  same "eval of a bf16 run in $type" "$("$aspis" eval narrow --set dtype=$type --json --quiet)" \
    "$("$aspis" eval narrow-weights --config small.yaml --set dtype=$type --json --quiet)"
done
"$aspis" train small.yaml --quiet --out narrow-still --set dtype=bf16 --set train.steps=1 --set optim.warmup_steps=0 \
  --set optim.lr=1e-30 --set model.init_from=narrow-weights >/dev/null
"$aspis" convert narrow-still narrow-still-weights >/dev/null
cmp narrow-weights/model.safetensors narrow-still-weights/model.safetensors || fail "masters were rounded on the way"
echo "ok: bf16"

refused 2 'weights: weights say nothing of data: expected --config CONFIG' "$aspis" eval weights
refused 2 'expected --config CONFIG, or --set data.kind=text' "$aspis" eval weights --set data.path=[text.txt]
refused 2 '--force' "$aspis" convert run weights
rm weights/config.json
refused 2 'model.safetensors' "$aspis" convert run weights
"$aspis" convert run weights --force >/dev/null || fail "convert --force"
refused 2 'is a run directory' "$aspis" convert run run --force
refused 2 "Mamba2ForCausalLM has no other" "$aspis" convert run elsewhere --to hf
refused 2 'ends in .h5' "$aspis" convert run elsewhere --to h5
"$aspis" convert run named.h5 >/dev/null
[ -f named.h5 ] || fail "convert to a name that ends in .h5: no checkpoint"
refused 2 'expected one of safetensors' "$aspis" convert run elsewhere --to gguf
refused 4 'nowhere' "$aspis" convert nowhere elsewhere
[ ! -e elsewhere ] || fail "a refused conversion left something"

# generate: valid JSON with no tokens, and when the logits are not finite.
same "no tokens" '{"tokens": []}' "$("$aspis" generate run --prompt-tokens 1 --max-tokens 0 --json)"
cp -r weights bad # the last number of the file is one of norm_f.weight
printf '\377\377\377\377' | dd of=bad/model.safetensors bs=1 seek=$(($(stat -c %s bad/model.safetensors) - 4)) \
  conv=notrunc 2>/dev/null
refused 5 'logits of token 1 are not finite' "$aspis" generate bad --prompt-tokens 1 --json
same "JSON of a model gone bad" '{"tokens": []}' "$(cat out.txt)"
refused 2 'has no tokenizer' "$aspis" generate weights --prompt hello
refused 2 '--out and --state-out' "$aspis" score run --tokens t.h5 --out a.h5 --state-out a.h5
