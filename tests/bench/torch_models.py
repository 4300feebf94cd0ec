"""Mamba-2 and Mamba-3 (SISO) in plain PyTorch, as one would write them without custom kernels: the chunked form of
Dao & Gu 2024 in batched matrix products. Both mixers are the same sum,
    y_t = sum over s <= t of exp(A_t - A_s) w_s (C_t . B_s) x_s,    A the running sum of the log-decays,
with B and C shared by the heads (Mamba-2) or their own (Mamba-3, after norm, bias and rotation)."""
import math

import torch
import torch.nn.functional as F
from torch import nn


def decays(cumulative):
    """(..., n) running sums -> (..., n, n): exp(A_t - A_s) where s <= t, else 0."""
    n = cumulative.shape[-1]
    later = torch.ones(n, n, dtype=torch.bool).triu(1)
    return torch.exp((cumulative[..., :, None] - cumulative[..., None, :]).masked_fill(later, -math.inf))


def scan(x, log_decay, weight, B, C, chunk):
    """x (b, l, h, p); log_decay, weight (b, l, h) float32; B, C (b, l, 1 or h, n) -> y (b, l, h, p)."""
    b, length, h, p = x.shape
    chunk = min(chunk, length)
    pad = -length % chunk
    n_chunks = (length + pad) // chunk

    def cut(t):  # (b, l, heads, ...) -> (b, chunks, heads, chunk, ...)
        t = F.pad(t, (0, 0) * (t.dim() - 2) + (0, pad)) if pad else t
        return t.unflatten(1, (n_chunks, chunk)).transpose(2, 3)

    v, B, C = cut((x * weight[..., None]).to(x.dtype)), cut(B), cut(C)
    A = cut(log_decay).cumsum(-1)
    y = ((C @ B.transpose(-1, -2)) * decays(A)).to(x.dtype) @ v
    if n_chunks > 1:
        to_end = torch.exp(A[..., -1:] - A)[..., None]
        own = (v * to_end).to(x.dtype).transpose(-1, -2) @ B                     # each chunk's state, (b, c, h, p, n)
        carry = decays(F.pad(A[..., -1].transpose(1, 2).cumsum(-1), (1, 0)))[..., :-1, 1:]
        entering = carry.to(x.dtype) @ own.transpose(1, 2).flatten(3)           # the states before, (b, h, c, p n)
        entering = entering.unflatten(-1, (p, -1)).transpose(1, 2)
        y = y + (C @ entering.transpose(-1, -2)) * torch.exp(A)[..., None]
    return y.transpose(2, 3).flatten(1, 2)[:, :length]


def scan_definition(x, log_decay, weight, B, C):
    """The same, token by token."""
    state, ys = 0, []
    for t in range(x.shape[1]):
        new = (x[:, t] * weight[:, t, :, None])[..., None] * B[:, t, :, None]
        state = state * torch.exp(log_decay[:, t])[..., None, None] + new
        ys.append((state * C[:, t, :, None]).sum(-1))
    return torch.stack(ys, 1)


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5) * self.weight).to(x.dtype)


class Mixer(nn.Module):
    def __init__(self, d_model, d_state, headdim, chunk, widths):
        super().__init__()
        self.width, self.n, self.p, self.chunk = 2 * d_model, d_state, headdim, chunk
        self.heads = self.width // headdim
        self.widths = widths(self.width, d_state, self.heads)
        self.in_proj = nn.Linear(d_model, sum(self.widths), bias=False)
        self.out_proj = nn.Linear(self.width, d_model, bias=False)
        dt = torch.exp(torch.empty(self.heads).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.D = nn.Parameter(torch.ones(self.heads))

    def dt(self, raw):
        return F.softplus(raw.float() + self.dt_bias)


class Mamba2(Mixer):
    TAPS = 4

    def __init__(self, d_model, d_state, headdim, chunk):
        super().__init__(d_model, d_state, headdim, chunk, lambda e, n, h: [e, e + 2 * n, h])
        channels = self.widths[1]
        self.conv_weight = nn.Parameter(torch.empty(self.TAPS, channels).uniform_(-0.5, 0.5))
        self.conv_bias = nn.Parameter(torch.empty(channels).uniform_(-0.5, 0.5))
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.norm = RMSNorm(self.width)

    def forward(self, u):
        z, xBC, dt = self.in_proj(u).split(self.widths, -1)
        # nn.Conv1d takes several times as long here as a shifted product a tap
        padded, taps = F.pad(xBC, (0, 0, self.TAPS - 1, 0)), self.conv_weight.to(xBC.dtype)
        xBC = self.conv_bias.to(xBC.dtype) + sum(taps[k] * padded[:, k:k + u.shape[1]] for k in range(self.TAPS))
        x, B, C = F.silu(xBC).split([self.width, self.n, self.n], -1)
        x, dt = x.unflatten(-1, (self.heads, self.p)), self.dt(dt)
        y = scan(x, -dt * self.A_log.exp(), dt, B[:, :, None], C[:, :, None], self.chunk)
        y = (y + self.D[:, None] * x).to(x.dtype).flatten(2)
        return self.out_proj(self.norm(y * F.silu(z)))


class Mamba3(Mixer):
    """Half of d_state rotates; no output norm; heavy-tailed A."""

    def __init__(self, d_model, d_state, headdim, chunk):
        super().__init__(d_model, d_state, headdim, chunk, lambda e, n, h: [e, e, n, n, h, h, h, n // 4])
        self.B_norm, self.C_norm = RMSNorm(d_state), RMSNorm(d_state)
        self.B_bias, self.C_bias = (nn.Parameter(torch.ones(self.heads, d_state)) for _ in "BC")

    def rotate(self, v, cosine, sine):
        n_pairs = self.n // 4
        first, second = v[..., :2 * n_pairs].unflatten(-1, (n_pairs, 2)).unbind(-1)
        turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], -1).flatten(-2)
        return torch.cat([turned, v[..., 2 * n_pairs:]], -1)

    def forward(self, u):
        z, x, B, C, dt, A, trap, angle = self.in_proj(u).split(self.widths, -1)
        x, dt, A = x.unflatten(-1, (self.heads, self.p)), self.dt(dt), A.float()
        A = -torch.where(A >= 0, 1 + A, 1 / (1 - A.clamp(max=0))).clamp(min=1e-4)
        mix = torch.sigmoid(trap.float())
        theta = (math.pi * torch.tanh(angle.float())[:, :, None] * dt[..., None]).cumsum(1)
        cosine, sine = theta.cos().to(x.dtype), theta.sin().to(x.dtype)
        B = self.B_norm(B)[:, :, None] + self.B_bias.to(x.dtype)
        C = self.C_norm(C)[:, :, None] + self.C_bias.to(x.dtype)
        # the trapezoid's second term enters one token later: it is added to the weight and taken off the diagonal
        late = F.pad((dt * (1 - mix))[:, 1:], (0, 0, 0, 1))
        y = scan(x, A * dt, mix * dt + late, self.rotate(B, cosine, sine), self.rotate(C, cosine, sine), self.chunk)
        diagonal = self.D - late * (B.float() * C.float()).sum(-1)
        y = (y + diagonal[..., None].to(x.dtype) * x).to(x.dtype).flatten(2)
        return self.out_proj(y * F.silu(z))


class Backbone(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.mixers = nn.ModuleList(make_mixer(w) for _ in range(w["n_layer"]))
        self.norms = nn.ModuleList(RMSNorm(w["d_model"]) for _ in range(w["n_layer"] + 1))

    def forward(self, h):
        for norm, mixer in zip(self.norms, self.mixers):
            h = h + mixer(norm(h))
        return self.norms[-1](h)


class LM(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.embedding, self.backbone = nn.Embedding(w["vocab"], w["d_model"]), Backbone(w)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens, targets):
        logits = F.linear(self.backbone(self.embedding(tokens)), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Forecaster(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.input_proj, self.backbone = nn.Linear(w["n_in"], w["d_model"]), Backbone(w)
        self.output_proj = nn.Linear(w["d_model"], w["horizon"] * w["n_out"])

    def forward(self, series, future):
        return F.mse_loss(self.output_proj(self.backbone(self.input_proj(series))[:, -1]).float(), future.flatten(1))


def make_mixer(w):
    return {"mamba2": Mamba2, "mamba3": Mamba3}[w["layer"]](w["d_model"], w["d_state"], w["headdim"], w["chunk"])
