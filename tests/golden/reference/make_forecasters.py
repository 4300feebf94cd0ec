"""Golden files of forecasters with today's options, from mamba_ref.py's backbone.   python3 make_forecasters.py OUT_DIR [--seed N]

forecaster_<case>.h5 as make_golden.py writes them, without a training run. The options are those of models/forecaster.c, written
anew from their meaning: one sequence after the other, a loop where the program gathers by an index.
"""
import argparse, json, os
import h5py, torch
import mamba_ref as R
from make_golden import clean, f32, leaf, put, put_all

MIXER = dict(d_model=12, headdim=4, d_state=8)
CASES = {  # mixer, columns, outputs, horizon, rows of the window, options
    "options_rows": (dict(MIXER, ngroups=2), 4, 2, 6, 20, dict(value_dim=2, known_future=True, head="rows", patch_len=3, stride=3,
                     bidirectional=True, channel_independent=True, linear=True, revin="standard")),
    "options_flatten": (dict(MIXER, layer="Mamba3"), 5, 2, 4, 22, dict(value_dim=4, target_first=1, head="flatten", patch_len=5, stride=3,
                        bidirectional=True, linear=True, revin="last")),
    "options_known": (dict(MIXER, layer="Mamba3", is_mimo=True, mimo_rank=2), 5, 3, 4, 17, dict(value_dim=3, channel_independent=True,
                      linear=True, revin="mean")),
}


def normalised(o, own):
    """own (B, past, V) -> the same without the window's statistic, and that: mean and std (B, V)."""
    kind, one = o.get("revin", "none"), torch.ones(own.shape[0], own.shape[2])
    mean = {"none": 0 * one, "last": own[:, -1]}.get(kind, own.mean(1))
    std = torch.sqrt((own - mean[:, None]).square().mean(1) + 1e-5) if kind == "standard" else one
    return (own - mean[:, None]) / std[:, None], mean, std


def tokens_of(o, window):
    """A window (rows, columns) of one sequence -> (tokens, patch_len * columns); the last token ends where the window ends."""
    length, step = o.get("patch_len", 1), o.get("stride", 1)
    n = -(-(len(window) - length) // step) + 1
    before = (n - 1) * step + length - len(window)
    rows = torch.cat([window[:1]] * before + [window])
    return torch.stack([rows[i * step: i * step + length].flatten() for i in range(n)])


def sequence_forecast(cfg, o, p, window, n_past, n_own):
    """window (rows, columns), the first n_own of them the series' own -> the forecast as one row."""
    h = tokens_of(o, window) @ p["input_proj.weight"].T + p["input_proj.bias"]
    there = R.backbone(cfg, p, h[None])[0][0]
    ways = [there]
    if o.get("bidirectional"): ways.append(R.backbone(cfg, p, h.flip(0)[None])[0][0])
    head = o.get("head", "last")
    if head == "last": read = torch.cat([y[-1] for y in ways])
    elif head == "flatten": read = torch.cat([y.flatten() for y in ways])
    else:  # each of the tokens ahead, and the way back's of the same token
        n = cfg.horizon // o.get("patch_len", 1)
        read = torch.cat([ways[0]] + [y.flip(0) for y in ways[1:]], 1)[-n:]
    out = (read @ p["output_proj.weight"].T + p["output_proj.bias"]).flatten()
    if o.get("linear"):
        known = torch.cat([window[t] if t < n_past else window[t, n_own:] for t in range(len(window))])
        out = out + p["linear.weight"] @ known
    return out


def predict(cfg, o, p, series):
    """series (B, rows, columns) -> (B, horizon, outputs)"""
    B, L, C = series.shape
    V, first, n_out = o.get("value_dim", C), o.get("target_first", 0), cfg.output_dim
    n_past = L - (cfg.horizon if o.get("known_future") else 0)
    own, mean, std = normalised(o, series[:, :n_past, :V])
    own = torch.cat([own, torch.zeros(B, L - n_past, V)], 1)
    rows = []
    for b in range(B):
        known = series[b, :, V:]
        if o.get("channel_independent"):
            each = [sequence_forecast(cfg, o, p, torch.cat([own[b, :, c:c + 1], known], 1), n_past, 1) for c in range(first, first + n_out)]
            y = torch.stack(each, 1)
        else: y = sequence_forecast(cfg, o, p, torch.cat([own[b], known], 1), n_past, V).reshape(cfg.horizon, n_out)
        rows.append(y * std[b, first:first + n_out] + mean[b, first:first + n_out])
    return torch.stack(rows)


def shapes(cfg, o, L):
    s, C, n_out, H, D = cfg.shapes(), cfg.input_dim, cfg.output_dim, cfg.horizon, cfg.mixer.d_model
    V, n_future = o.get("value_dim", C), cfg.horizon if o.get("known_future") else 0
    columns, outputs = (1 + C - V, 1) if o.get("channel_independent") else (C, n_out)
    length, ways = o.get("patch_len", 1), 2 if o.get("bidirectional") else 1
    positions = -(-(L - length) // o.get("stride", 1)) + 1 if o.get("head") == "flatten" else 1
    s["input_proj.weight"] = (D, length * columns)
    width = (length if o.get("head") == "rows" else H) * outputs
    s["output_proj.weight"], s["output_proj.bias"] = (width, positions * ways * D), (width,)
    if o.get("linear"): s["linear.weight"] = (H * outputs, (L - n_future) * columns + n_future * (C - V))
    return s


def case(out, name, seed, B=2):
    mixer, C, n_out, H, L, o = CASES[name]
    cfg = R.Model(mixer=R.Mixer(**mixer), n_layer=1, input_dim=C, output_dim=n_out, horizon=H)
    g = torch.Generator().manual_seed(seed)
    p = leaf(R.random_params(shapes(cfg, o, L), seed, scale=0.7))
    series, target = (f32(torch.randn(B, n, c, generator=g)) for n, c in ((L, C), (H, n_out)))
    y = predict(cfg, o, p, series)
    mse = (y - target).square().mean()
    mse.backward()
    with h5py.File(f"{out}/forecaster_{name}.h5", "w") as h:
        config = dict(clean(cfg), mixer=clean(cfg.mixer), context=L - (H if o.get("known_future") else 0), **o)
        h.attrs["config"], h.attrs["mse"] = json.dumps(config).replace("Infinity", "1e30"), mse.item()
        put_all(h, "param", p); put(h, "series", series); put(h, "target", target); put(h, "prediction", y)
        put_all(h, "dparam", {k: v.grad for k, v in p.items()})


if __name__ == "__main__":
    a = argparse.ArgumentParser(); a.add_argument("out"); a.add_argument("--seed", type=int, default=0); a = a.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for i, name in enumerate(CASES): case(a.out, name, a.seed + 500 + i); print(name, flush=True)
