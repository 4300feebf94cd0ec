"""Times the Triton (and TileLang) kernels of mamba_ssm on this GPU, at the sizes that tests/gpu/run.sh times Aspis at: a JSON
line each. Needs PyTorch and mamba_ssm; what cannot be imported or run gives a line that says why."""

import json
import statistics
import time

import torch

D_MODEL, D_STATE, HEADDIM, N_SEQ, LENGTH, RUNS = 2048, 128, 64, 8, 2048, 20


def timed(run):
    """Median milliseconds of RUNS after a warm-up, each waited for."""
    for _ in range(5):
        run()
    samples = []
    for _ in range(RUNS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        samples.append(1e3 * (time.perf_counter() - start))
    return statistics.median(samples)


def line(case, passes, ms):
    print(json.dumps({"peer": "torch", "case": case, "pass": passes, "ms": round(ms, 4)}), flush=True)


def attempt(case, body):
    try:
        body(case)
    except Exception as error:  # a peer that cannot run is told, not fatal
        print(json.dumps({"peer": "torch", "case": case, "failed": f"{type(error).__name__}: {error}"[:300]}), flush=True)


def scan_mamba2(case):
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    n_h = 2 * D_MODEL // HEADDIM
    make = lambda *shape, dtype=torch.bfloat16: torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=True)
    x, b, c = make(N_SEQ, LENGTH, n_h, HEADDIM), make(N_SEQ, LENGTH, 1, D_STATE), make(N_SEQ, LENGTH, 1, D_STATE)
    dt = (0.05 * torch.rand(N_SEQ, LENGTH, n_h, device="cuda")).requires_grad_()
    a = (-torch.rand(n_h, device="cuda")).requires_grad_()
    d = torch.ones(n_h, device="cuda", requires_grad=True)
    forward = lambda: mamba_chunk_scan_combined(x, dt, a, b, c, chunk_size=256, D=d)
    line(case, "forward", timed(forward))
    y = forward()
    dy = torch.randn_like(y)
    line(case, "backward", timed(lambda: torch.autograd.grad(y, (x, dt, a, b, c, d), dy, retain_graph=True)))


def mixer(make):
    def body(case):
        layer = make().to("cuda", torch.bfloat16)
        x = torch.randn(N_SEQ, LENGTH, D_MODEL, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        line(case, "forward", timed(lambda: layer(x)))
        y = layer(x)
        dy = torch.randn_like(y)
        leaves = [x] + [p for p in layer.parameters() if p.requires_grad]
        line(case, "backward", timed(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True, allow_unused=True)))

    return body


def mamba2():
    from mamba_ssm.modules.mamba2 import Mamba2

    return Mamba2(D_MODEL, d_state=D_STATE, headdim=HEADDIM, chunk_size=256)


def mamba3(is_mimo):
    def make():
        from mamba_ssm.modules.mamba3 import Mamba3

        options = {"is_mimo": True, "mimo_rank": 4, "chunk_size": 16} if is_mimo else {"is_mimo": False, "chunk_size": 64}
        return Mamba3(d_model=D_MODEL, d_state=D_STATE, headdim=HEADDIM, **options)

    return make


def main():
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    line("product_8192", "bf16", timed(lambda: a @ a))
    big = torch.empty(1 << 28, device="cuda")
    other = torch.empty_like(big)
    line("copy_1GiB", "f32", timed(lambda: other.copy_(big)))
    del a, big, other
    attempt("scan_mamba2", scan_mamba2)
    attempt("mamba2", mixer(mamba2))
    attempt("mamba3", mixer(mamba3(False)))
    attempt("mamba3_mimo", mixer(mamba3(True)))


if __name__ == "__main__":
    main()
