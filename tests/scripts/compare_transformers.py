#!/usr/bin/env python3
"""Holds convert, and the reading of weights, to the `transformers` package (5.24 with PyTorch 2.15 when last run).

  compare_transformers.py ASPIS FOLDER    ASPIS: build/aspis; FOLDER: scratch, made anew

A small Mamba-2 of ours is written with `convert --to hf` and read there, one of theirs is written there (safetensors, shards, half
precision, pytorch_model.bin) and read here; both make logits of the same tokens. n_groups = 1: the package's slow path normalises
ungrouped. Needs: pip install torch transformers h5py
"""
import json, os, shutil, subprocess, sys
import h5py, numpy, torch
from transformers import Mamba2Config, Mamba2ForCausalLM

LIMIT = 1e-4


def aspis(*args):
    subprocess.run([ASPIS, *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ours(model, tokens, out="logits.h5"):
    with h5py.File("tokens.h5", "w") as f:
        f["tokens"] = tokens.astype("int32")
    aspis("score", model, "--tokens", "tokens.h5", "--out", out)
    with h5py.File(out) as f:
        return f["logits"][...]


def theirs(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens.astype("int64"))).logits.float().numpy()


def told(name, a, b, limit=LIMIT):
    worst = float(numpy.abs(a - b).max())
    print(f"{name:50s} {worst:.2e}  (logits up to {numpy.abs(b).max():.3g})  {'ok' if worst <= limit else 'TOO FAR'}")
    return worst <= limit


def main():
    global ASPIS
    ASPIS = os.path.abspath(sys.argv[1])
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    os.makedirs(sys.argv[2])
    os.chdir(sys.argv[2])
    good = True
    with open("text.txt", "w") as f:
        f.write("the quick brown fox jumps over the lazy dog, again and again.\n" * 200)
    sets = ["name=small", "data.path=[text.txt]", "train.steps=20", "train.batch_size=8", "data.seq_len=64", "model.d_model=48",
            "model.n_layer=3", "model.ssm_cfg.layer=Mamba2", "model.ssm_cfg.headdim=16", "model.ssm_cfg.d_state=24"]
    with open("c.yaml", "w") as f:
        f.write("name: small\n")
    tokens = numpy.random.default_rng(1).integers(0, 256, (3, 50))
    for tied in ("true", "false"):
        run = f"run-{tied}"
        aspis("train", "c.yaml", "--out", run, *[x for s in sets + [f"model.tie_embeddings={tied}"] for x in ("--set", s)])
        aspis("convert", run, f"hf-{tied}", "--to", "hf")
        model = Mamba2ForCausalLM.from_pretrained(f"hf-{tied}")
        good &= told(f"ours, read there, tied {tied}", theirs(model, tokens), ours(run, tokens))
        good &= told("  and here again", ours(f"hf-{tied}", tokens), ours(run, tokens), 0)
    for name, options in (("tied", dict(tie_word_embeddings=True)), ("biases", dict(use_bias=True, tie_word_embeddings=False)),
                          ("limited", dict(time_step_limit=[0.01, 0.2], tie_word_embeddings=False, chunk_size=16))):
        torch.manual_seed(3)
        config = Mamba2Config(hidden_size=32, num_hidden_layers=2, state_size=16, num_heads=4, head_dim=16, n_groups=1,
                              vocab_size=256, conv_kernel=4, **options)
        model = Mamba2ForCausalLM(config)
        for p in model.parameters():
            p.data += 0.02 * torch.randn_like(p)
        model.save_pretrained(f"theirs-{name}")
        want = theirs(model, tokens)
        good &= told(f"theirs, {name}", ours(f"theirs-{name}", tokens), want)
        model.save_pretrained(f"shards-{name}", max_shard_size="20KB")
        assert os.path.exists(f"shards-{name}/model.safetensors.index.json")
        good &= told("  in shards", ours(f"shards-{name}", tokens), want)
        os.makedirs(f"bin-{name}")
        shutil.copy(f"theirs-{name}/config.json", f"bin-{name}")
        torch.save(model.state_dict(), f"bin-{name}/pytorch_model.bin")
        good &= told("  pytorch_model.bin", ours(f"bin-{name}", tokens), want)
        for dtype in (torch.bfloat16, torch.float16):
            half = Mamba2ForCausalLM(config).to(dtype)
            half.load_state_dict({k: v.to(dtype) for k, v in model.state_dict().items()})
            folder = f"half-{name}-{str(dtype)[6:]}"
            half.save_pretrained(folder)
            good &= told(f"  {str(dtype)[6:]}", ours(folder, tokens), theirs(half.float(), tokens))
    sys.exit(not good)


main()
