"""Blind-row Bayesian denoiser (wip)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cosdd.config import InputError

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def has_amx() -> bool:
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


class Block(nn.Module):
    def __init__(self, dimensions: int, features: int, kernel=3) -> None:
        super().__init__()
        conv = CONV[dimensions]
        self.conv1 = conv(features, features, kernel, padding=kernel // 2)
        self.conv2 = conv(features, features, kernel, padding=kernel // 2)
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class UNet(nn.Module):
    def __init__(self, dimensions, inputs, outputs, features=(32, 48, 64), blocks=1):
        super().__init__()
        conv = CONV[dimensions]
        self.dimensions = dimensions
        self.entry = conv(inputs, features[0], 3, padding=1)
        self.down = nn.ModuleList([nn.Sequential(*[Block(dimensions, f) for _ in range(blocks)]) for f in features])
        self.pool = nn.ModuleList([conv(a, b, 2, stride=2) for a, b in zip(features[:-1], features[1:], strict=True)])
        self.rise = nn.ModuleList([conv(b, a, 1) for a, b in zip(features[:-1], features[1:], strict=True)])
        self.up = nn.ModuleList([nn.Sequential(*[Block(dimensions, f) for _ in range(blocks)]) for f in features[:-1]])
        self.head = conv(features[0], outputs, 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
        self.amx = has_amx()

    def forward(self, x):
        space = x.shape[2:]
        step = 2 ** len(self.pool)
        pad = []
        for n in reversed(space):
            pad += [0, -n % step]
        if any(pad):
            x = F.pad(x, pad, mode="replicate")
        if self.dimensions == 2:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.amx or x.device.type == "cuda"):
            h = self.entry(x)
            skips = []
            for i, down in enumerate(self.down):
                h = down(h)
                if i < len(self.pool):
                    skips.append(h)
                    h = self.pool[i](h)
            for i in reversed(range(len(self.pool))):
                h = skips[i] + F.interpolate(self.rise[i](h), scale_factor=2, mode="nearest")
                h = self.up[i](h)
            h = F.silu(h)
        with torch.autocast(x.device.type, enabled=False):
            y = self.head(h.float())
        return y[(..., *[slice(0, n) for n in space])]


class GaussianRows(torch.autograd.Function):
    """nll of rows and the whitened residual."""

    @staticmethod
    def forward(ctx, residual, covariance):
        W = residual.shape[-1]
        L = torch.linalg.cholesky(covariance)
        inv = torch.linalg.solve_triangular(L, torch.eye(W, dtype=L.dtype, device=L.device).expand_as(L), upper=False)
        white = (inv @ residual[..., None])[..., 0]
        alpha = (inv.mT @ white[..., None])[..., 0]
        nll = (
            0.5 * white.square().sum(-1) + L.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * W * math.log(2 * math.pi)
        )
        ctx.save_for_backward(alpha, inv)
        ctx.mark_non_differentiable(alpha)
        return nll, alpha

    @staticmethod
    def backward(ctx, g, _):
        alpha, inv = ctx.saved_tensors
        precision = inv.mT @ inv
        grad = (0.5 * g)[..., None, None] * (precision - alpha[..., :, None] * alpha[..., None, :])
        return g[..., None] * alpha, grad


class NoiseModel(nn.Module):
    def __init__(self, channels, taps=7, start=0.3, shot_kernel=True):
        super().__init__()
        self.log_offset = nn.Parameter(torch.full((channels,), math.log(start / 2)))
        self.log_gain = nn.Parameter(torch.full((channels,), math.log(start / 8)))
        self.log_correlated = nn.Parameter(torch.full((channels,), math.log(start / 2)))
        self.log_row = nn.Parameter(torch.full((channels,), math.log(start / 1000)))
        kernel = torch.exp(-0.5 * (torch.arange(taps) - taps // 2).float() ** 2 / 0.6**2).repeat(channels, 1)
        self.kernel = nn.Parameter(kernel)
        delta = torch.zeros(channels, taps)
        delta[:, taps // 2] = 1
        self.shot_kernel = nn.Parameter(delta, requires_grad=shot_kernel)
        self.floor = 3e-4

    def variance(self, signal, c):
        o, g = self.log_offset.exp()[c], self.log_gain.exp()[c]
        return (o + g * signal).clamp_min(self.floor)

    def taps(self, kernel):
        return kernel / kernel.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-6)

    def autocorrelation(self, kernel, W):
        k = self.taps(kernel)
        n = k.shape[-1]
        full = F.conv1d(k[None], k[:, None], padding=n - 1, groups=k.shape[0])[0]  # channels, 2n-1
        lag = torch.arange(W, device=k.device)
        lag = (lag[:, None] - lag[None]) + n - 1
        inside = (lag >= 0) & (lag < 2 * n - 1)
        return torch.where(inside, full[:, lag.clamp(0, 2 * n - 2)], 0.0)  # channels, W, W

    def covariance(self, signal: Float[Tensor, "b c n w"]):
        W = signal.shape[-1]
        c = torch.arange(signal.shape[1], device=signal.device)[:, None, None]
        a = self.variance(signal, c).sqrt()
        eye = torch.eye(W, device=signal.device)
        shot = 0.98 * self.autocorrelation(self.shot_kernel, W) + 0.02 * eye
        corr = self.log_correlated.exp()[:, None, None] * (0.98 * self.autocorrelation(self.kernel, W) + 0.02 * eye)
        return (
            a[..., :, None] * a[..., None, :] * shot[:, None]
            + (corr + 1e-6 + self.log_row.exp()[:, None, None])[:, None]
        )

    def sample(self, signal):
        C = signal.shape[1]
        c = torch.arange(C, device=signal.device).reshape(-1, *[1] * (signal.dim() - 2))

        def coloured(kernel):
            k = self.taps(kernel)
            e = torch.randn(signal.shape, device=signal.device)
            flat = e.movedim(1, 0).reshape(C, -1, e.shape[-1]).movedim(1, 0)
            n = k.shape[-1]
            y = F.conv1d(F.pad(flat, (n // 2, n // 2), mode="reflect"), k[:, None], groups=C)
            y = 0.98**0.5 * y + 0.02**0.5 * torch.randn_like(y)
            return y.movedim(0, 1).reshape(C, signal.shape[0], *signal.shape[2:]).movedim(0, 1)

        a = self.variance(signal, c).sqrt()
        return (
            a * coloured(self.shot_kernel)
            + (0.5 * self.log_correlated[c]).exp() * coloured(self.kernel)
            + (0.5 * self.log_row[c]).exp() * torch.randn_like(signal[..., :1])
        )


class BlindRow(nn.Module):
    def __init__(
        self,
        *,
        dimensions=2,
        channels=1,
        noise_axis="x",
        features=(32, 48, 64),
        blocks=1,
        period=4,
        rank=4,
        widths=(1.0, 4.0),
        reward=0.02,
        shot_kernel=True,
        rows=512,
        direct=None,
        alpha=0.3,
        direct_blocks=1,
        distill=0.0,
    ):
        super().__init__()
        if dimensions < 2:
            raise InputError("blind-row denoising needs other rows: the images have one dimension")
        self.channels, self.period, self.rank, self.reward, self.rows = channels, period, rank, reward, rows
        self.dimensions = dimensions
        self.axis = {"x": -1, "none": -1, "y": -2, "z": -3}[noise_axis]
        self.near = [d for d in range(1 - period, period) if d != 0]
        groups = len(widths)
        self.net = UNet(dimensions, channels * len(self.near), channels * (1 + rank * groups), features, blocks)
        skip = torch.zeros(channels, len(self.near))
        for i, d in enumerate(self.near):
            skip[:, i] = 0.5 if abs(d) == 1 else 0
        self.skip = nn.Parameter(skip)
        self.log_width = nn.Parameter(torch.tensor(widths).log())
        self.base = nn.Parameter(torch.full((channels, groups), 0.1))
        self.noise = NoiseModel(channels, shot_kernel=shot_kernel)
        self.direct = None
        self.alpha, self.distill = alpha, distill
        if direct:
            self.direct = UNet(dimensions, channels, channels, direct, direct_blocks)

    # -- blind prior
    def prior(self, x, offset):
        """x (b c *space), noise axis last -> mean (b c *cells w), factors (b c g r *cells w)."""
        H = x.shape[-2]
        P = self.period
        cells = torch.arange(offset, H, P)
        want = cells[:, None] + torch.tensor(self.near)
        allowed = [i for i in range(H) if i % P != offset % P]
        al = torch.tensor(allowed)
        idx = al[(want[..., None] - al).abs().argmin(-1)]  # cells, near
        n = len(cells)
        u = x.index_select(-2, idx.T.reshape(-1).to(x.device)).unflatten(-2, (len(self.near), n))
        u = u.movedim(-3, 2)  # b c near *space
        b, c = u.shape[:2]
        y = self.net(u.flatten(1, 2)).unflatten(1, (c, -1))
        skip = self.skip.reshape(1, c, -1, *[1] * self.dimensions)
        mean = (u * skip).sum(2) + y[:, :, 0]
        f = y[:, :, 1:].unflatten(2, (len(self.log_width), self.rank))
        f = torch.cat([f[:, :, :, :1] + self.base.reshape(1, c, -1, 1, *[1] * self.dimensions), f[:, :, :, 1:]], 3)
        f = 3 * torch.tanh(f / 3)
        return mean, f

    def signal_covariance(self, f: Float[Tensor, "g r n w"]) -> Tensor:
        """f (rows g r w) -> rows w w"""
        W = f.shape[-1]
        lag = torch.arange(W, device=f.device, dtype=f.dtype)
        d2 = (lag[:, None] - lag[None]).square()
        C = 0
        for k in range(f.shape[1]):
            kappa = torch.exp(-0.5 * d2 / self.log_width[k].exp().clamp(0.3, 30) ** 2)
            C = C + (f[:, k].mT @ f[:, k]) * kappa
        return C

    def _rows(self, t, lead):
        """(b c extra *cells w) -> (b c n extra w), n = all rows"""
        b, c = t.shape[:2]
        extra = t.shape[2 : t.dim() - self.dimensions]
        t = t.reshape(b, c, math.prod(extra), -1, t.shape[-1]).movedim(2, 3)
        return t.reshape(b, c, t.shape[2], *extra, t.shape[-1])

    def forward(self, x, progress=0.0):
        x = x.movedim(self.axis, -1) if self.axis != -1 else x
        H = x.shape[-2]
        offset = int(torch.randint(min(self.period, H), ()))
        mean, f = self.prior(x, offset)
        target = x[..., offset :: self.period, :]
        with torch.autocast(x.device.type, enabled=False):
            m, t, ff = self._rows(mean, 0), self._rows(target, 0), self._rows(f, 0)
            if m.shape[2] * m.shape[0] > self.rows:
                keep = torch.randperm(m.shape[2])[: max(1, self.rows // m.shape[0])]
                m, t, ff = m[:, :, keep], t[:, :, keep], ff[:, :, keep]
            W = m.shape[-1]
            N = self.noise.covariance(m)
            C = self.signal_covariance(ff.reshape(-1, *ff.shape[3:])).reshape(N.shape)
            nll, alpha = GaussianRows.apply(t - m, C + N)
            nll = nll.mean() / W
            reward = N.diagonal(dim1=-2, dim2=-1).log().mean()
        out = {
            "nll": nll,
            "loss": nll - self.reward * max(0.0, 1 - 2 * progress) * reward,
            "blind": (t - m).square().mean().detach(),
        }
        return out

    @torch.no_grad()
    def posterior(self, x, window=128):
        x = x.movedim(self.axis, -1) if self.axis != -1 else x
        mean, var = torch.empty_like(x), torch.empty_like(x)
        W = x.shape[-1]
        window = min(window, W)
        stride = window // 2
        starts = sorted({min(s, W - window) for s in range(0, max(1, W - window // 2), stride)})
        for offset in range(min(self.period, x.shape[-2])):
            m, f = self.prior(x, offset)
            shape = m.shape
            t = self._rows(x[..., offset :: self.period, :], 0)
            m, f = self._rows(m, 0), self._rows(f, 0)
            pm, pv = torch.empty_like(m), torch.empty_like(m)
            for s in starts:
                w = slice(s, s + window)
                N = self.noise.covariance(m[..., w])
                C = self.signal_covariance(f[..., w].reshape(-1, *f.shape[3:-1], window)).reshape(N.shape)
                L = torch.linalg.cholesky(C + N)
                half = torch.linalg.solve_triangular(L, C, upper=False)
                white = torch.linalg.solve_triangular(L, (t - m)[..., w, None], upper=False)
                a = 0 if s == 0 else window // 4
                b = window if s + window == W else window - window // 4
                pm[..., s + a : s + b] = (m[..., w] + (half.mT @ white)[..., 0])[..., a:b]
                pv[..., s + a : s + b] = (C.diagonal(dim1=-2, dim2=-1) - half.square().sum(-2))[..., a:b]
            mean[..., offset :: self.period, :] = pm.reshape(shape)
            var[..., offset :: self.period, :] = pv.reshape(shape)
        std = var.clamp_min(0).sqrt()
        if self.axis != -1:
            mean, std = mean.movedim(-1, self.axis), std.movedim(-1, self.axis)
        return mean, std

    @torch.no_grad()
    def noise_model(self):
        n = self.noise
        o, g, c = n.log_offset.exp(), n.log_gain.exp(), n.log_correlated.exp()
        k1, k2 = n.autocorrelation(n.shot_kernel, 8)[:, 0], n.autocorrelation(n.kernel, 8)[:, 0]
        total = 0.98 * (k1 * o[:, None] + k2 * c[:, None])
        total[:, 0] /= 0.98
        r = lambda t: [round(v, 5) for v in t.flatten().tolist()]
        return {
            "gain": r(g),
            "offset": r(o),
            "correlated": r(c),
            "k1": r(k1[:, :4]),
            "k2": r(k2[:, :5]),
            "autocorrelation": r((total / total[:, :1])[:, :5]),
            "total": r(total[:, 0]),
            "row": r(n.log_row.exp()),
            "width": r(self.log_width.exp()),
        }

    def parameter_groups(self):
        noise = [p for p in self.noise.parameters() if p.requires_grad]
        ids = {id(p) for p in noise}
        return [
            {"params": [p for p in self.parameters() if id(p) not in ids], "lr_scale": 1.0},
            {"params": noise, "lr_scale": 10.0},
        ]
