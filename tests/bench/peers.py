#!/usr/bin/env python3
"""What other implementations take for the workloads of configs/bench, on this machine: one measurement a process, one JSON
line on stdout. See README.md beside this file.

    peers.py W2 --peer torch [--compile] [--dtype bf16]     plain PyTorch (torch_models.py)
    peers.py W2 --peer mamba2-jax                           the packages mamba2-jax, mamba3-jax [--mimo-rank 4]
    peers.py check                                          the plain PyTorch scan = its definition, token by token"""
import argparse
import json
import os
import resource
import statistics
import time

SMALL = dict(d_model=384, n_layer=6, d_state=64, headdim=64, chunk=64, vocab=256, batch=8, length=512, kind="lm")
FORECAST = dict(kind="forecast", layer="mamba2")
WORKLOADS = {
    "W1": dict(FORECAST, d_model=768, n_layer=1, d_state=128, headdim=64, chunk=256, batch=2, length=32, n_in=10, n_out=1,
               horizon=16, optimizer="sgd"),
    "W2": dict(SMALL, layer="mamba2", optimizer="adamw"),
    "W3": dict(SMALL, layer="mamba3", optimizer="adamw"),
    "W4": dict(kind="lm", layer="mamba2", d_model=768, n_layer=24, d_state=128, headdim=64, chunk=256, vocab=50288, batch=1,
               length=1024, optimizer="adamw"),
    **{f"W6-{n}": dict(SMALL, layer="mamba2", kind="mixer", batch=1, length=n) for n in (512, 2048, 8192, 32768)},
    "W7": dict(FORECAST, d_model=64, n_layer=2, d_state=64, headdim=16, chunk=96, batch=32, length=96, n_in=7, n_out=7,
               horizon=96, optimizer="adamw"),
    "GEMM": dict(kind="linear", batch=1, length=2048, n_in=768, n_out=3352),  # torch only: the rate of the best library
}
MIN_RUNS, MAX_RUNS = 5, 30


def processor():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return names[0] if names else "not known"


def busy_seconds():
    """What all processes have computed since the machine started."""
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:8]]
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")


def measure(step, seconds):
    """Runs step again and again. -> milliseconds of each run, seconds of the first, share of the machine others took."""
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    n_warm, start = 1, time.perf_counter()
    while first < 5 and (n_warm < 3 or time.perf_counter() - start < 0.5):
        step()
        n_warm += 1
    runs, wall, own, busy = [], time.perf_counter(), time.process_time(), busy_seconds()
    while len(runs) < MIN_RUNS or (len(runs) < MAX_RUNS and time.perf_counter() - wall < seconds):
        start = time.perf_counter()
        step()
        runs.append((time.perf_counter() - start) * 1e3)
    wall, own = time.perf_counter() - wall, time.process_time() - own
    others = max(0, busy_seconds() - busy - own) / wall / os.cpu_count()
    return runs, first, 100 * others


def torch_step(w, args):
    import contextlib

    import torch
    import torch_models as models

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    bf16 = args.dtype == "bf16"
    cast = (lambda: torch.autocast("cpu", torch.bfloat16)) if bf16 else contextlib.nullcontext
    if w["kind"] == "linear":
        dtype = torch.bfloat16 if bf16 else torch.float32
        x, weight = torch.randn(w["length"], w["n_in"]).to(dtype), torch.randn(w["n_out"], w["n_in"]).to(dtype)
        return (lambda: torch.nn.functional.linear(x, weight)), "torch " + torch.__version__
    make = dict(lm=models.LM, forecast=models.Forecaster, mixer=models.make_mixer)[w["kind"]]
    model = call = make(w)
    if args.compile and w["kind"] == "lm" and w["n_layer"] > 8:  # the whole would compile for minutes
        for mixer in model.backbone.mixers:
            mixer.compile()
    elif args.compile:
        call = torch.compile(model)
    shape = (w["batch"], w["length"])
    if w["kind"] == "lm":
        inputs = torch.randint(w["vocab"], shape), torch.randint(w["vocab"], shape)
    elif w["kind"] == "forecast":
        inputs = torch.randn(*shape, w["n_in"]), torch.randn(w["batch"], w["horizon"], w["n_out"])
    else:
        x, dy = torch.randn(*shape, w["d_model"], requires_grad=True), torch.randn(*shape, w["d_model"])
    optimizer = None
    if "optimizer" in w and w["kind"] != "mixer":
        kinds = dict(sgd=lambda p: torch.optim.SGD(p, lr=1e-3), adamw=lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True))
        optimizer = kinds[w["optimizer"]](model.parameters())

    def step():
        with cast():
            loss = (call(x).float() * dy).sum() if w["kind"] == "mixer" else call(*inputs)
        loss.backward()
        if optimizer:
            optimizer.step()
        else:
            x.grad = None
        model.zero_grad(set_to_none=True)
        return loss.item()

    return step, "torch " + torch.__version__


def jax_step(w, args):
    os.environ["JAX_PLATFORMS"] = "cpu"
    import importlib

    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import nnx

    package = importlib.import_module(args.peer.replace("-", "_"))
    prefix = {"mamba2-jax": "Mamba2", "mamba3-jax": "Mamba3"}[args.peer]
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape, dtype=np.float32))
    if w["kind"] == "forecast":
        model = package.create_random_forecaster(
            w["n_in"], d_model=w["d_model"], n_layers=w["n_layer"], output_dim=w["n_out"], forecast_horizon=w["horizon"],
            d_state=w["d_state"], headdim=w["headdim"], chunk_size=w["chunk"])
    else:
        mimo = dict(is_mimo=True, mimo_rank=args.mimo_rank) if args.mimo_rank else {}
        config = getattr(package, prefix + "Config")(
            vocab_size=w["vocab"], hidden_size=w["d_model"], state_size=w["d_state"], head_dim=w["headdim"],
            chunk_size=w["chunk"], num_hidden_layers=w["n_layer"], **mimo)
        model = package.create_random_model(config) if w["kind"] == "lm" else \
            getattr(package, prefix + "Mixer")(config, 0, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    build = lambda p: nnx.merge(graph, p)
    version = f"{args.peer} {package.__version__}, jax {jax.__version__}"

    if w["kind"] == "mixer":
        x, dy = (normal(w["batch"], w["length"], w["d_model"]) for _ in range(2))
        gradients = jax.jit(jax.grad(lambda p, x: (build(p)(x)[0] * dy).sum(), argnums=(0, 1)))
        return (lambda: jax.block_until_ready(gradients(params, x))), version

    if w["kind"] == "lm":
        data = jnp.asarray(rng.integers(0, w["vocab"], (w["batch"], w["length"])))
        loss_of = lambda p: build(p)(data, labels=data)["loss"]
    else:
        data, future = normal(w["batch"], w["length"], w["n_in"]), normal(w["batch"], w["horizon"], w["n_out"])
        loss_of = lambda p: jnp.square(build(p)(data) - future).mean()
    optimizer = optax.sgd(1e-3) if w["optimizer"] == "sgd" else optax.adamw(1e-4)

    def train(p, state):
        loss, gradient = jax.value_and_grad(loss_of)(p)
        update, state = optimizer.update(gradient, state, p)
        return optax.apply_updates(p, update), state, loss

    train = jax.jit(train, donate_argnums=(0, 1))
    now = [params, optimizer.init(params)]

    def step():
        now[0], now[1], loss = train(*now)
        return float(loss)

    return step, version


def check():
    import torch
    import torch_models as models

    torch.manual_seed(0)
    for heads_of_B in (1, 3):
        for length, chunk in ((1, 8), (8, 8), (29, 8), (40, 8), (29, 64)):
            x, (B, C) = torch.randn(2, length, 3, 5), torch.randn(2, 2, length, heads_of_B, 4)
            weight, log_decay = torch.rand(2, length, 3), -torch.rand(2, length, 3)
            arguments = [t.double() for t in (x, log_decay, weight, B, C)]
            error = (models.scan(*arguments, chunk) - models.scan_definition(*arguments)).abs().max().item()
            assert error < 1e-12, f"length {length}, chunk {chunk}: {error}"
    print("ok: the chunked scan is its definition")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workload", choices=[*WORKLOADS, "check"])
    p.add_argument("--peer", choices=["torch", "mamba2-jax", "mamba3-jax"], default="torch")
    p.add_argument("--compile", action="store_true", help="torch.compile")
    p.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="bf16: autocast, float32 masters (torch only)")
    p.add_argument("--mimo-rank", type=int, default=0, help="mamba3-jax only")
    p.add_argument("--seconds", type=float, default=2.0, help="time to spend at least, beside five runs")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = p.parse_args()
    if args.workload == "check":
        return check()
    if args.peer != "torch" and (args.compile or args.dtype != "f32" or args.workload == "GEMM"):
        p.error(f"{args.peer}: float32, compiled by JAX: neither --compile nor --dtype, and no GEMM")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    w = WORKLOADS[args.workload]
    step, version = (torch_step if args.peer == "torch" else jax_step)(w, args)
    runs, first, others = measure(step, args.seconds)
    peer = args.peer + (" compiled" if args.compile else "") + (f" MIMO {args.mimo_rank}" if args.mimo_rank else "")
    ms = statistics.median(runs)
    print(json.dumps(dict(
        who=peer, version=version, workload=args.workload, dtype=args.dtype, ms=round(ms, 4), min_ms=round(min(runs), 4),
        runs=len(runs), tok_per_s=round(w["batch"] * w["length"] / ms * 1e3, 1), first_s=round(first, 2),
        peak_rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), other_cpu_pct=round(others, 1),
        threads=args.threads, cpu=processor(),
        **(dict(gflops=2e-6 * w["length"] * w["n_in"] * w["n_out"] / ms) if w["kind"] == "linear" else {}))))


if __name__ == "__main__":
    main()
