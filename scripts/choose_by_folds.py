#!/usr/bin/env python3
"""Chooses a forecaster by rolling folds through time, without sight of a test part (docs/forecasting.md).

    choose_by_folds.py ETTh1.csv --aspis build/aspis --out runs/folds [--ablate] [--rows 11520] [--draws 60] [--set KEY=VALUE]
                       [--settings FILE.json] [--jobs 1]

Fold k trains on the first rows of the file and is scored on the `--window` rows behind them. Settings are drawn from SPACE, or
those of a file: [{key: value}, ..]. They are scored by the mean over folds of MSE / MSE of ridge regression on the same windows:
    all of them on the second and fourth fold, seed 1; the best third on all folds; the best three with seeds 2 and 3, too.
The lowest mean over folds and seeds is the choice. What was run already is read from OUT/scores.jsonl and not run again, so a
search that was cut short goes on; OUT belongs to one list of settings, to whose end more may be added."""
import argparse
import json
import os
import random
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

FOLDS, FIRST_HALF = 4, (1, 3)
HORIZON = 96
SPACE = {
    "patch": [(12, 12), (24, 12), (24, 24), (48, 24)],
    "model.d_model": [16, 32, 64],
    "model.n_layer": [1, 2],
    "model.ssm_cfg.layer": ["Mamba2", "Mamba3"],
    "model.ssm_cfg.d_state": [16, 32, 64],
    "model.ssm_cfg.headdim": [8, 16, 32],
    "model.revin": ["false", "last", "mean", "true"],
    "model.cycle": [0, 24],
    "model.linear": ["true", "false"],
    "model.channel_independent": ["true", "true", "true", "false"],
    "model.dropout": [0.1, 0.2, 0.3, 0.5],
    "optim.lr": [5e-4, 1e-3, 2e-3, 4e-3],
    "optim.weight_decay": [0.01, 0.1, 0.3],
    "model.loss": ["mse", "mae", "huber"],
}


def draw(n):
    rng = random.Random(20261128)
    return [{key: rng.choice(values) for key, values in SPACE.items()} for _ in range(n)]


def sets(setting):
    """The setting as keys of the config."""
    keys = {k: v for k, v in setting.items() if k not in ("patch", "passes")}
    if "patch" in setting:
        keys["model.patch_len"], keys["model.stride"] = setting["patch"]
    return [f"{k}={v}" for k, v in keys.items()]


class Search:
    def __init__(self, args):
        self.args, self.scores, self.path = args, {}, os.path.join(args.out, "scores.jsonl")
        os.makedirs(args.out, exist_ok=True)
        if os.path.exists(self.path):
            with open(self.path) as f:
                for line in f:
                    run = json.loads(line)
                    self.scores[run["setting"], run["fold"], run["seed"]] = run["score"]
        with open(args.csv) as f:
            self.lines = f.readlines()[: args.rows + 1]
        self.settings, self.lock = draw(args.draws), threading.Lock()
        if args.settings:
            with open(args.settings) as f:
                self.settings = json.load(f)
        for k in range(FOLDS):
            n_train, path = self.fold(k)
            with open(path, "w") as f:
                f.writelines(self.lines[: n_train + args.window + 1])

    def fold(self, k):
        """-> rows to train on, and the file with them and those to score."""
        return self.args.rows - (FOLDS - k) * self.args.window, os.path.join(self.args.out, f"fold{k}.csv")

    def score(self, i, k, seed):
        if (i, k, seed) in self.scores:
            return self.scores[i, k, seed]
        n_train, path = self.fold(k)
        n_all = n_train + self.args.window
        steps = int(self.settings[i].get("passes", 3) * (n_train - self.args.context - HORIZON + 1) // 32)
        out = os.path.join(self.args.out, f"{i}-{k}-{seed}")
        shutil.rmtree(out, ignore_errors=True)
        keys = sets(self.settings[i]) + [
            f"model.context={self.args.context}", f"data.path=[{path}]", "data.borders=[]", f"seed={seed}", f"train.steps={steps}",
            f"data.split={{train: {n_train / n_all!r}, val: {1 - n_train / n_all!r}, test: 0}}",
            f"train.eval_every={steps // 4}", f"train.save_every={steps}", "train.patience=0"]
        if self.args.ablate:
            keys.append("model.ablate=mixer")
        keys += self.args.set
        command = [self.args.aspis, "train", self.args.config, "--out", out, "--quiet"]
        subprocess.run(command + [a for key in keys for a in ("--set", key)], check=True, stdout=subprocess.DEVNULL)
        told = subprocess.run([self.args.aspis, "eval", out, "--part", "val", "--json"], check=True, capture_output=True)
        told = json.loads(told.stdout.splitlines()[-1])
        shutil.rmtree(out)
        self.scores[i, k, seed] = told["mse"] / told["linear_mse"]
        with self.lock, open(self.path, "a") as f:
            run = {"setting": i, "fold": k, "seed": seed, "score": self.scores[i, k, seed], "mse": told["mse"]}
            f.write(json.dumps(run | {"ridge_mse": told["linear_mse"], "keys": sets(self.settings[i])}) + "\n")
        return self.scores[i, k, seed]

    def best(self, candidates, folds, seeds, n):
        means = {}
        with ThreadPoolExecutor(self.args.jobs) as pool:
            list(pool.map(lambda run: self.score(*run), [(i, k, seed) for i in candidates for seed in seeds for k in folds]))
        for i in candidates:
            runs = [self.score(i, k, seed) for seed in seeds for k in folds]
            means[i] = sum(runs) / len(runs)
            print(f"{i:3}  {means[i]:.4f} of ridge, {len(runs)} runs  {' '.join(sets(self.settings[i]))}", flush=True)
        return sorted(means, key=means.get)[:n]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv")
    parser.add_argument("--aspis", default="build/aspis")
    parser.add_argument("--config", default="configs/etth1_96.yaml", help="what the drawn keys are set in")
    parser.add_argument("--out", default="runs/folds")
    parser.add_argument("--rows", type=int, default=11520, help="rows of the file that may be seen (ETT: 16 months)")
    parser.add_argument("--window", type=int, default=1440, help="rows that a fold is scored on")
    parser.add_argument("--context", type=int, default=96, help="look-back")
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--settings", help="a JSON file with a list of settings to try instead of draws")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key that all settings share")
    parser.add_argument("--ablate", action="store_true", help="the identity in the mixers' place")
    search = Search(parser.parse_args())
    everything = range(FOLDS)
    third = search.best(range(len(search.settings)), FIRST_HALF, [1], max(1, len(search.settings) // 3))
    three = search.best(third, everything, [1], 3)
    choice = search.best(three, everything, [1, 2, 3], 1)[0]
    print("chosen:", " ".join(sets(search.settings[choice])))


if __name__ == "__main__":
    main()
