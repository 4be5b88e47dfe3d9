"""The methods in plain tensor operations, as their official codes compute them, for benchmarks/methods.py.

Written from the description of those codes, for their cost: normalised copies, whole distance matrices, a step for
each frame or pick. Each function takes a video and a retention and returns the kept or merged tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.tokens import VideoTokens


def evs(video: VideoTokens, retention: float) -> Tensor:
    """Change by cosine, the largest stay."""
    x = video.features
    change = 1 - F.cosine_similarity(x[1:], x[:-1], dim=-1)
    change = torch.cat([torch.full_like(change[:1], 255), change])
    count = max(video.positions, int(change.numel() * retention))
    order = change.flatten().argsort(descending=True, stable=True)[:count]
    mask = torch.zeros(change.numel(), dtype=torch.bool)
    mask[order] = True
    return x.flatten(0, 1)[mask]


def gaussian(x: Tensor, centre: Tensor) -> Tensor:
    """The sum of kernels."""
    distance = (x - centre).square().sum(-1)
    return sum((-distance / (2 * width)).exp() for width in (1 / 8, 1 / 4, 1 / 2, 1, 2))


def vidcom2(video: VideoTokens, retention: float) -> Tensor:
    """Normalised copy, kernels by differences, a selection for each frame."""
    x, frames, positions = video.features, video.frames, video.positions
    chosen = x.flatten(0, 1).var(0).topk(x.shape[-1] // 2, largest=False).indices
    unit = F.normalize(x[..., chosen], dim=-1)
    usual = gaussian(unit, unit.mean((0, 1)))
    score = usual + gaussian(unit, unit.mean(1, keepdim=True))
    weight = (-usual.mean(1) / 0.01).softmax(0)
    shares = (retention * (1 + weight - weight.mean())).clamp(max=1)
    kept = []
    for t in range(frames):
        count = max(1, round(float(shares[t]) * positions))
        kept.append(x[t, score[t].topk(count, largest=False).indices.sort().values])
    return torch.cat(kept)


def visionzip(video: VideoTokens, retention: float) -> Tensor:
    """Dominant tokens, one-hot products for the others."""
    x, keys, scores, positions = video.features, video.keys, video.scores, video.positions
    size = round(positions * retention)
    dominant = size * 54 // 64
    mask = torch.ones_like(scores, dtype=torch.bool).scatter_(1, scores.topk(dominant).indices, False)
    frames, width = x.shape[0], x.shape[2]
    rest, metric = x[mask].view(frames, -1, width), keys[mask].view(frames, positions - dominant, -1)
    metric = F.normalize(metric, dim=-1)
    targets = torch.arange(0, rest.shape[1], rest.shape[1] // (size - dominant))[: size - dominant]
    others = torch.ones(rest.shape[1], dtype=torch.bool)
    others[targets] = False
    alike = metric[:, others] @ metric[:, targets].transpose(1, 2)
    assign = F.one_hot(alike.argmax(2), size - dominant).to(x.dtype)
    merged = assign.transpose(1, 2) @ rest[:, others] / assign.sum(1).clamp(min=1)[:, :, None]
    return torch.cat([x[~mask].view(frames, dominant, width), rest[:, targets] + merged], 1).flatten(0, 1)


def dycoke(video: VideoTokens, retention: float) -> Tensor:
    """A cosine for each pair of frames."""
    x, size = video.features, max(0, round((retention - 0.25) / 0.75 * video.positions))
    kept = list(x)
    for first, step in ((range(0, len(x) - 1, 2), 1), (range(0, len(x) - 2, 4), 2)):
        for t in first:
            alike = F.cosine_similarity(x[t], x[t + step], dim=-1)
            kept[t + step] = x[t + step][alike.topk(size, largest=False).indices]
    return torch.cat(kept)


def vcast(video: VideoTokens, retention: float) -> Tensor:
    """Curvature, normalised copy, a selection for each frame."""
    x = video.features
    means = F.normalize(x.mean(1), dim=-1)
    turns = means.diff(dim=0)
    curvature = torch.ones(len(x))
    curvature[1:-1] = 1 - F.cosine_similarity(turns[:-1], turns[1:], dim=-1)
    counts = ((curvature / 0.7).softmax(0) * x.shape[0] * x.shape[1] * retention).long().clamp(1, x.shape[1])
    norms = x.norm(dim=-1)
    low, high = norms.amin(1, keepdim=True), norms.amax(1, keepdim=True)
    score = 1 - (F.normalize(x, dim=-1) * means[:, None]).sum(-1) + (norms - low) / (high - low + 1e-6)
    return torch.cat([x[t, score[t].topk(int(n)).indices.sort().values] for t, n in enumerate(counts)])


def divprune(video: VideoTokens, retention: float) -> Tensor:
    """The whole distance matrix, all picks' rows at each pick."""
    x = video.features.flatten(0, 1)
    unit = F.normalize(x, dim=-1)
    distance = 1 - unit @ unit.T
    picked = torch.empty(round(len(x) * retention), dtype=torch.long)
    for i in range(len(picked)):
        nearest = (
            distance.index_select(0, picked[:i]).amin(0) if i else distance.topk(2, dim=0, largest=False).values[1]
        )
        picked[i] = nearest.argmax()
    return x[picked.sort().values]


def cdpruner(video: VideoTokens, retention: float) -> Tensor:
    """Normalised copies, a kernel for each frame, incremental Cholesky."""
    x, frames, positions = video.features, video.frames, video.positions
    unit, text = F.normalize(x, dim=-1), F.normalize(video.question, dim=-1)
    relevance = (unit @ text.T).mean(-1)
    relevance = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    kernel = relevance[:, :, None] * (unit @ unit.transpose(1, 2)) * relevance[:, None]
    count, batch = round(positions * retention), torch.arange(frames)
    factor, left = x.new_zeros(count, frames, positions), kernel.diagonal(dim1=1, dim2=2).clone()
    picked = []
    for step in range(count):
        best = left.argmax(-1)
        picked.append(best)
        row = kernel[batch, best] - torch.einsum("tb,tbn->bn", factor[:step, batch, best], factor[:step])
        factor[step] = row / left[batch, best].sqrt()[:, None]
        left -= factor[step].square()
        left[batch, best] = -torch.inf
    keep = torch.stack(picked, 1).sort(1).values
    return x.gather(1, keep[:, :, None].expand(-1, -1, x.shape[2])).flatten(0, 1)


def echoprune(video: VideoTokens, retention: float) -> Tensor:
    """A normalised copy; for each frame similarities, a softmax and a reconstruction of the frame."""
    x, positions = video.features, video.positions
    unit, text = F.normalize(x, dim=-1), F.normalize(video.question, dim=-1)
    worth = (unit @ text.T).amax(-1)
    for t in range(1, video.frames):
        now, before = unit[t], unit[t - 1]
        echo = (now @ before.T / 0.5).softmax(-1) @ before
        worth[t] -= (now * before).sum(-1) + (now * echo).sum(-1)
    total = round(worth.numel() * retention)
    share = total // video.frames
    keep = torch.cat([worth[0].topk(share).indices, positions + worth[1:].flatten().topk(total - share).indices])
    return x.flatten(0, 1)[keep.sort().values]


def density(x: Tensor, count: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """Density peaks of (B, n, D): centres (B, count) and clusters (B, n)."""
    distance = torch.cdist(x, x) / x.shape[-1] ** 0.5
    rho = (-distance.topk(neighbours, dim=-1, largest=False).values.square().mean(-1)).exp()
    rho = rho + torch.rand_like(rho) * 1e-6
    mask = (rho[:, None, :] > rho[:, :, None]).to(x.dtype)
    far = distance.flatten(1).amax(-1)[:, None, None]
    delta = (distance * mask + far * (1 - mask)).amin(-1)
    centres = (delta * rho).topk(count, dim=-1).indices
    cluster = distance.gather(2, centres[:, None, :].expand(-1, x.shape[1], -1)).argmin(-1)
    return centres, cluster


def cluster_means(x: Tensor, count: int) -> Tensor:
    """Cluster means by one-hot products."""
    cluster = density(x, count, min(7, count))[1]
    assign = F.one_hot(cluster, count).to(x.dtype)
    return assign.transpose(1, 2) @ x / assign.sum(1).clamp(min=1)[:, :, None]


def scenes(video: VideoTokens) -> list[tuple[int, int]]:
    """First frames and ends, cut by frame means."""
    alike = F.cosine_similarity(video.features[1:].mean(1), video.features[:-1].mean(1), dim=-1)
    cut = [0, *[t + 1 for t, value in enumerate(alike.tolist()) if value < 0.9], video.frames]
    return list(pairwise(cut))


def fastvid(video: VideoTokens, retention: float) -> Tensor:
    """Density peaks of each anchor frame, one-hot products over its pool."""
    x, size = video.features, math.floor(video.positions * retention)
    context, out = math.floor(size * 0.4), []
    salient = video.scores.topk(size - context).indices
    mask = torch.ones(x.shape[:2], dtype=torch.bool).scatter_(1, salient, False)
    rest = x[mask].view(len(x), -1, x.shape[2])
    for first, last in scenes(video):
        anchors = list(range(last - 1, first - 1, -4))
        count = math.floor(context * (last - first) / len(anchors))
        pool = rest[first:last].flatten(0, 1)
        for t in anchors:
            centres, _ = density(rest[t][None], count, 4)
            targets = rest[t][centres[0]]
            alike = F.normalize(pool, dim=-1) @ F.normalize(targets, dim=-1).T
            assign = F.one_hot(alike.argmax(1), count).to(x.dtype)
            joined = assign.sum(0)
            own = (1 / (joined + 1)).clamp(min=0.6)[:, None]
            out.append(own * targets + (1 - own) * (assign.T @ pool / joined.clamp(min=1)[:, None]))
    return torch.cat([x[~mask], *out])


def prunevid(video: VideoTokens, retention: float) -> Tensor:
    """Cosines of all pairs of a scene's frames, then clusters."""
    x, out = video.features, []
    density(x.mean(1)[None], max(1, len(x) // 4), 7)
    for first, last in scenes(video):
        part = F.normalize(x[first:last], dim=-1).transpose(0, 1)
        frames = last - first
        alike = (part @ part.transpose(1, 2)).sum((1, 2)) - frames
        static = alike / max(1, frames * (frames - 1)) > 0.8
        for tokens in (x[first:last, static].mean(0)[None], x[first:last, ~static]):
            if tokens.shape[1] > 14:
                tokens = cluster_means(tokens, max(1, int(tokens.shape[1] * retention)))
            out.append(tokens.flatten(0, 1))
    return torch.cat(out)


def flashvid(video: VideoTokens, retention: float) -> Tensor:
    """A distance matrix for each frame, trees, clusters."""
    x, scores = video.features, video.scores
    budget = math.ceil(video.positions * retention)
    count = math.ceil(budget * 0.7)
    selected = torch.empty(len(x), count, dtype=torch.long)
    out = []
    for first, last in scenes(video):
        agreement = x[first:last].mean((0, 1))
        for t in range(first, last):
            unit = F.normalize(x[t], dim=-1)
            distance = (1 - unit @ unit.T) * scores[t] * (x[t] @ agreement)
            for i in range(count):
                nearest = distance[selected[t, :i]].amin(0) if i else distance.topk(2, dim=0, largest=False).values[1]
                selected[t, i] = nearest.argmax()
        values = x[first:last].clone()
        unit = F.normalize(values, dim=-1)
        best, parent = (unit[1:] @ unit[:-1].transpose(1, 2)).max(-1)
        free = torch.ones(last - first, x.shape[1], dtype=torch.bool).scatter_(1, selected[first:last], False)
        moves = F.pad((best > 0.8).T, (1, 0)).T & free
        size = torch.ones(last - first, x.shape[1])
        for t in range(last - first - 1, 0, -1):
            mine = moves[t].nonzero()[:, 0]
            values[t - 1].index_add_(0, parent[t - 1, mine], values[t, mine])
            size[t - 1].index_add_(0, parent[t - 1, mine], torch.ones(len(mine)))
        values = values / size[..., None].to(values.dtype)
        stays = free & ~moves
        ratio = (budget - count) * (last - first) / int(stays.sum())
        for t in range(last - first):
            tokens = values[t, stays[t]]
            if 0 < (wanted := math.ceil(len(tokens) * ratio)) < len(tokens):
                tokens = cluster_means(tokens[None], wanted)[0]
            out.append(tokens)
        out.append(x[first:last].gather(1, selected[first:last, :, None].expand(-1, -1, x.shape[2])).flatten(0, 1))
    return torch.cat(out)


STRAIGHTFORWARD: dict[str, Callable[[VideoTokens, float], Tensor]] = {
    function.__name__: function
    for function in (evs, vidcom2, visionzip, dycoke, vcast, divprune, cdpruner, echoprune, fastvid, prunevid, flashvid)
}
