#!/usr/bin/env python3
"""Runs `aspis bench` over its cases and the workloads of configs/bench, then the peers that are installed, one process a
measurement, and writes the tables of docs/performance.md (`make bench`).

A measurement begins when the other processes leave the machine alone, and is taken again (twice at most) when they took
more than 5 % of it meanwhile; the calmest is kept. Every line goes to the results file at once: started again, what is
there is not measured again (lines of Aspis belong to one build of the program). Delete lines to have them measured anew.

PY_TORCH and PY_JAX name the interpreters that have the peers (default: the one that runs this)."""
import argparse
import datetime
import hashlib
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing is left in the source tree
from peers import WORKLOADS, busy_seconds, processor

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
QUICK = ("W1", "W6-512", "W7")
OPERATIONS = "gemm norm conv dt scan gate swiglu attention cross_entropy mixers adamw".split()
SHOWN = [w for w in WORKLOADS if w != "GEMM"]
ASPIS_ONLY = ["W3-mimo"]
CALM_PCT, TRIES, LIMIT_S = 5, 3, 900


def wait_for_calm(most_s=90):
    end = time.time() + most_s
    while True:
        busy, start = busy_seconds(), time.time()
        time.sleep(1)
        share = (busy_seconds() - busy) / (time.time() - start) / os.cpu_count()
        if 100 * share < 3 * CALM_PCT or time.time() > end:
            return


def run_once(command, environment):
    """-> lines of JSON, or why there are none."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return None, f"not done in {LIMIT_S} s"
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], None


def measure(command, environment, calm):
    best, why = None, None
    for _ in range(TRIES if calm else 1):
        if calm:
            wait_for_calm()
        lines, why = run_once(command, environment)
        if lines is None:
            break
        disturbed = max((line.get("other_cpu_pct", 0) for line in lines), default=0)
        if best is None or disturbed < best[0]:
            best = disturbed, lines
        if disturbed <= CALM_PCT:
            break
    return (best[1], None) if best else (None, why)


def has_module(python, module):
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def jobs(args, build):
    """(key, command) of everything that can be measured here, most wanted first; keys are (who, workload, dtype)."""
    wanted = [w for w in [*SHOWN, *ASPIS_ONLY] if (not args.quick or w in QUICK) and (not args.only or w in args.only)]
    seconds = ["--seconds", "0.2" if args.quick else "2"]
    aspis = [args.aspis, "bench", "--json", *seconds]
    if not args.only:
        yield (build, "machine", "f32"), [*aspis, "machine"]
        for dtype in ("f32", "bf16"):
            yield (build, "operations", dtype), [*aspis, *OPERATIONS, "--set", f"dtype={dtype}"]
    for workload in wanted:
        for dtype in ("f32", "bf16"):
            name, _, length = workload.lower().partition("-")
            case = ["mixer", "--set", f"data.seq_len={length}"] if name == "w6" else ["step"]
            config = os.path.join("configs", "bench", (name if name == "w6" else workload.lower()) + ".yaml")
            if os.path.exists(os.path.join(ROOT, config)):
                yield (build, workload, dtype), [*aspis, *case, "--config", config, "--set", f"dtype={dtype}"]
            else:
                print(f"skipped: {workload}: there is no {config}")
    peers = os.path.join(HERE, "peers.py")
    if has_module(args.py_torch, "torch"):
        for dtype in ("f32", "bf16"):
            yield ("torch", "GEMM", dtype), [args.py_torch, peers, "GEMM", "--dtype", dtype, *seconds]
        for workload in wanted:
            if workload not in WORKLOADS:
                continue
            for dtype in ("f32", "bf16"):
                for compiled in (False, True):
                    if compiled and args.quick:
                        continue
                    extra = ["--compile"] if compiled else []
                    yield ("torch" + " compiled" * compiled, workload, dtype), \
                        [args.py_torch, peers, workload, "--dtype", dtype, *extra, *seconds]
    if has_module(args.py_jax, "mamba2_jax"):
        for workload in wanted:
            if workload in WORKLOADS and workload != "W3":
                yield ("mamba2-jax", workload, "f32"), [args.py_jax, peers, workload, "--peer", "mamba2-jax", *seconds]
    if has_module(args.py_jax, "mamba3_jax") and "W3" in wanted:
        yield ("mamba3-jax", "W3", "f32"), [args.py_jax, peers, "W3", "--peer", "mamba3-jax", *seconds]


# ---- tables ------------------------------------------------------------------------------------------------------------


def cell(line):
    if line is None:
        return ""
    if "failed" in line:
        return "failed"
    ms = line["ms"]
    return (f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.3g} s") + f", {line['peak_rss_mib']:.0f} MiB"


def gemm_rate(results, build, dtype):
    """GFLOP/s of the best product of 2048 x 768 by 3352: Aspis's or PyTorch's; None: not measured."""
    products = [*results.get((build, "operations", dtype), []), *results.get(("torch", "GEMM", dtype), [])]
    rates = [x["gflops"] for x in products if "gflops" in x
             and (x.get("workload") == "GEMM" or (x["case"], x["pass"]) == ("gemm_rate", "forward"))]
    return max(rates, default=None)


def workload_table(results, build, peers):
    """One row a workload and type: Aspis, each peer, and Aspis beside the fastest of them."""
    if not peers:
        yield "No peer is installed on this machine (PyTorch or JAX, tests/bench/README.md): Aspis alone."
        yield ""
    head = ["workload", "type", "Aspis", "tokens/s", "GFLOP/s", "of the GEMM rate", *peers, "fastest peer / Aspis"]
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join(["---"] * len(head)) + " |"
    for workload in [*SHOWN, *ASPIS_ONLY]:
        for dtype in ("f32", "bf16"):
            rate = gemm_rate(results, build, dtype)
            ours = (results.get((build, workload, dtype)) or [None])[0]
            theirs = [(results.get((p, workload, dtype)) or [None])[0] for p in peers]
            if ours is None and not any(theirs):
                continue
            times = [line["ms"] for line in theirs if line and "ms" in line]
            ahead = f"{min(times) / ours['ms']:.2f}" if times and ours and "ms" in ours else ""
            figures = [""] * 3
            if ours and "ms" in ours:
                share = f"{100 * ours['gflops'] / rate:.0f} %" if rate else ""
                figures = [f"{ours['tok_per_s']:,.0f}", f"{ours['gflops']:.0f}", share]
            yield "| " + " | ".join([workload, dtype, cell(ours), *figures, *map(cell, theirs), ahead]) + " |"


def operation_table(results, build):
    yield "| case | pass | type | ms | least | GFLOP/s | GB/s | of its ceiling | sizes |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for dtype in ("f32", "bf16"):
        for x in results.get((build, "operations", dtype), []):
            if "failed" in x:
                yield f"| operations | | {dtype} | failed: {x['failed']} | | | | | |"
                continue
            yield (f"| {x['case']} | {x['pass']} | {dtype} | {x['ms']:.3f} | {x['min_ms']:.3f} | {x['gflops']:.0f} | "
                   f"{x['gb_per_s']:.1f} | {100 * x['peak_fraction']:.0f} % ({x['bound']}) | {x['shape']} |")


def machine_table(results, build):
    yield "| ceiling | GFLOP/s | GB/s | threads |"
    yield "| --- | --- | --- | --- |"
    for x in results.get((build, "machine", "f32"), []):
        if "failed" not in x and (x["gflops"] or x["gb_per_s"]):  # a build may have no BF16 products
            rates = [f"{x[unit]:.0f}" if x[unit] else "" for unit in ("gflops", "gb_per_s")]
            yield "| " + " | ".join([x["pass"], *rates, str(x["threads"])]) + " |"


def write_tables(args, results, build):
    peers = [p for p in ("torch", "torch compiled", "mamba2-jax", "mamba3-jax") if any(key[0] == p for key in results)]
    versions = sorted({x["version"] for lines in results.values() for x in lines if "version" in x})
    machine = next((x["cpu"] for key, lines in results.items() if key[0] == build for x in lines if "cpu" in x), processor())
    disturbed = [" ".join(["Aspis" if key[0] == build else key[0], *key[1:]]) for key, lines in results.items()
                 if key[0] in (build, *peers) and any(x.get("other_cpu_pct", 0) > CALM_PCT for x in lines)]
    rates = [f"{rate:.0f} GFLOP/s {dtype}" for dtype in ("f32", "bf16") if (rate := gemm_rate(results, build, dtype))]
    notes = [f"GEMM rate: {', '.join(rates) or 'not measured'}."]
    notes.append("Peers: " + "; ".join(versions) + "." if versions else "Peers: none.")
    if disturbed:
        notes.append(f"Other processes took more than {CALM_PCT} % of the machine during: {', '.join(sorted(disturbed))}.")
    blocks = {
        "machine": [f"{machine}, {os.cpu_count()} cores, {datetime.date.today()}.", "", *machine_table(results, build)],
        "workloads": [*workload_table(results, build, peers), "", *notes],
        "operations": list(operation_table(results, build)),
    }
    with open(args.doc, encoding="utf-8") as f:
        text = f.read()
    for name, lines in blocks.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        head, rest = text.split(begin)
        text = head + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    with open(args.doc, "w", encoding="utf-8") as f:
        f.write(text)


def load(path):
    results = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            for line in map(json.loads, f):
                results[tuple(line["key"])] = line["lines"]
    return results


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--aspis", default=os.path.join(ROOT, "build", "aspis"))
    p.add_argument("--results", help="default: build/bench.jsonl, with --quick build/bench-quick.jsonl")
    p.add_argument("--doc", default=os.path.join(ROOT, "docs", "performance.md"))
    p.add_argument("--quick", action="store_true", help=f"operations, {', '.join(QUICK)}; shortly; no torch.compile")
    p.add_argument("--only", nargs="*", default=[], help="these workloads only")
    p.add_argument("--tables", action="store_true", help="write the tables from the results file; measure nothing")
    p.add_argument("--no-wait", action="store_true", help="measure once, whoever else is at work")
    args = p.parse_args()
    args.aspis = os.path.abspath(args.aspis)
    args.results = args.results or os.path.join(ROOT, "build", "bench-quick.jsonl" if args.quick else "bench.jsonl")
    args.py_torch, args.py_jax = (os.environ.get(name) or sys.executable for name in ("PY_TORCH", "PY_JAX"))
    with open(args.aspis, "rb") as f:
        build = "aspis " + hashlib.sha256(f.read()).hexdigest()[:12]
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    results = load(args.results)
    for key, command in [] if args.tables else jobs(args, build):
        if key in results:
            continue
        lines, why = measure(command, environment, not args.no_wait)
        results[key] = lines if why is None else [{"failed": why}]
        with open(args.results, "a", encoding="utf-8") as f:
            f.write(json.dumps({"key": key, "lines": results[key]}) + "\n")
        print(*key, why or (cell(lines[0]) if len(lines) == 1 else f"{len(lines)} lines"), flush=True)
    write_tables(args, results, build)


if __name__ == "__main__":
    main()
