"""Frames as wholes, and how single rows compare with others: in chunks, without a second copy of the features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.edges import send, sum_rows
from holitom.ops.similarity import row_chunk, row_dots, row_norms

_TINY = torch.finfo(torch.float32).tiny


def frame_chunks(features: Tensor) -> list[slice]:
    """Slices of frames of (T, N, D) whose float32 copies are small enough to stay in a CPU's cache."""
    frames, positions, width = features.shape
    step = max(1, row_chunk(positions * width, features.device))
    return [slice(start, min(start + step, frames)) for start in range(0, frames, step)]


def frame_means(features: Tensor) -> Tensor:
    """(T, N, D) -> (T, D) float32: the mean of each frame's tokens."""
    if features.device.type != "cpu":
        return features.mean(1, dtype=torch.float32)
    weight = torch.full((1, features.shape[1]), 1 / features.shape[1], dtype=torch.float32, device=features.device)
    return torch.cat([(weight @ features[part].float())[:, 0] for part in frame_chunks(features)])


def token_norms(features: Tensor) -> Tensor:
    """(T, N, D) -> (T, N) float32: the Euclidean norm of each token."""
    return row_norms(features.flatten(0, 1)).view(features.shape[:2])


def cosine_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of each token of ``a`` with the token of ``b`` at the same place.

    Args:
        a: (P, N, D) floating point, of any strides.
        b: (P, N, D) floating point, of any strides.

    Returns:
        (P, N) float32 in [-1, 1]; 0 where a token is zero.
    """
    if a.device.type != "cpu":
        dots = torch.cat([(a[part].float() * b[part]).sum(-1) for part in frame_chunks(a)])
        scale = torch.linalg.vector_norm(a, dim=-1, dtype=torch.float32)
        scale = (scale * torch.linalg.vector_norm(b, dim=-1, dtype=torch.float32)).clamp_(min=_TINY)
        return dots.div_(scale).clamp_(-1, 1)
    cosine = torch.empty(a.shape[:2], dtype=torch.float32, device=a.device)
    step = row_chunk(a.shape[2], a.device)
    for pair in range(a.shape[0]):
        for start in range(0, a.shape[1], step):
            x, y = a[pair, start : start + step].float(), b[pair, start : start + step].float()
            scale = (row_dots(x, x) * row_dots(y, y)).sqrt_().clamp_(min=_TINY)
            cosine[pair, start : start + step] = row_dots(x, y) / scale
    return cosine.clamp_(-1, 1)


def dots_with(features: Tensor, vectors: Tensor) -> Tensor:
    """Inner products of each token with vectors of its frame.

    Args:
        features: (T, N, D) floating point.
        vectors: (T, C, D) float32.

    Returns:
        (T, N, C) float32.
    """
    parts = [features[part].float() @ vectors[part].transpose(1, 2) for part in frame_chunks(features)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def consecutive_cosine(vectors: Tensor) -> Tensor:
    """(T, E) -> (T-1,) float32: cosine of each frame's vector with the next frame's."""
    unit = F.normalize(vectors.float(), dim=-1)
    return (unit[:-1] * unit[1:]).sum(-1)


def channel_variance(features: Tensor) -> Tensor:
    """(T, N, D) -> (D,) float32: the variance of each channel over all T*N tokens (one pass, Chan et al. 1979)."""
    if len(frame_chunks(features)) == 1:
        rows = features.flatten(0, 1).float()
        return rows.var(0, correction=min(1, len(rows) - 1))
    mean = features.new_zeros(features.shape[2], dtype=torch.float32)
    spread = torch.zeros_like(mean)
    count = 0
    for part in frame_chunks(features):
        rows = features[part].flatten(0, 1).float()
        near = rows.mean(0)
        gap = near - mean
        total = count + len(rows)
        spread += (rows - near).square_().sum(0) + gap.square() * (count * len(rows) / total)
        mean += gap * (len(rows) / total)
        count = total
    return spread / max(1, count - 1)


def weighted_frame_sums(features: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the unit vectors of each frame's tokens, in some of the channels.

    Args:
        features: (T, N, D) floating point.
        channels: (D,) float32, 1 for a channel that counts and 0 for one that does not.

    Returns:
        (T, D) float32, 0 in the other channels; (T, N) float32 the norms, at least a tiny number.
    """
    frames, positions, width = features.shape
    sums = torch.empty(frames, width, dtype=torch.float32, device=features.device)
    norms = torch.empty(frames, positions, dtype=torch.float32, device=features.device)
    for part in frame_chunks(features):
        x = features[part] * channels
        torch.linalg.vector_norm(x, dim=-1, out=norms[part]).clamp_(min=_TINY)
        torch.bmm(norms[part].reciprocal()[:, None], x, out=sums[part][:, None])
    return sums, norms


def lowest_cuts(alike: Tensor, count: int) -> Tensor:
    """(T-1,) similarity of neighbours -> (T-1,) bool: the ``count`` lowest, or all where there are fewer."""
    cut = torch.zeros(len(alike), dtype=torch.bool, device=alike.device)
    cut[(-alike).argsort(descending=True, stable=True)[:count]] = True
    return cut


def spans_of_cuts(cut: Tensor) -> list[tuple[int, int]]:
    """(T-1,) bool, cut after frame t -> the first and last frame of each segment. Waits for the device."""
    after = [t for t, here in enumerate(cut.tolist()) if here]
    return list(zip([0, *[t + 1 for t in after]], [*after, len(cut)], strict=True))


def scene_means(features: Tensor, spans: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """:func:`static_similarity` of some scenes that follow each other.

    Args:
        features: (T, N, D) floating point.
        spans: the first and last frame of each of C scenes, together all frames.

    Returns:
        (C, N) float32 on the CPU, for which it waits; (C, N, D) the means, of the features' dtype.
    """
    if features.device.type == "cpu":
        alike = torch.empty(len(spans), features.shape[1], dtype=torch.float32, device="cpu")
        means = features.new_empty(len(spans), *features.shape[1:])
        for scene, (first, last) in enumerate(spans):
            alike[scene], means[scene] = static_similarity(features[first : last + 1])
        return alike, means
    positions, place = features.shape[1], torch.arange(features.shape[1], device="cpu")
    length = torch.tensor([last - first + 1 for first, last in spans], device="cpu")
    source = [
        (place[:, None] + torch.arange(first, last + 1, device="cpu") * positions).flatten() for first, last in spans
    ]
    each = length.repeat_interleave(positions)
    begin = torch.cat([torch.zeros(1, dtype=torch.int64, device="cpu"), each.cumsum(0)])
    tokens, begin, among = send([torch.cat(source), begin, each.repeat_interleave(each)], features.device)
    rows = features.detach().flatten(0, 1)
    units = sum_rows(rows, tokens, begin, (1 / row_norms(rows).clamp_(min=1e-12))[tokens], wide=True)
    square = torch.linalg.vector_norm(units, dim=-1).view(len(spans), positions).cpu().square()
    frames = length[:, None].float()
    alike = ((square - frames) / (frames * (frames - 1))).masked_fill(frames == 1, -1.0)
    return alike, sum_rows(rows, tokens, begin, among.reciprocal()).view(len(spans), positions, -1)


def static_similarity(features: Tensor) -> tuple[Tensor, Tensor]:
    """How alike each position is over all pairs of different frames, from one pass: (|sum of units|^2 - W) / (W(W-1)).

    Args:
        features: (W, N, D) floating point, the frames of one scene.

    Returns:
        (N,) float32 mean cosine, -1 where there is one frame alone; (N, D) float32 mean over the frames.
    """
    frames, positions, width = features.shape
    units = torch.zeros(positions, width, dtype=torch.float32, device=features.device)
    total = torch.zeros_like(units)
    for frame in features:
        x = frame.float()
        total += x
        units += F.normalize(x, dim=-1)
    if frames == 1:
        return torch.full((positions,), -1.0, dtype=torch.float32, device=features.device), total
    return (units.square().sum(-1) - frames) / (frames * (frames - 1)), total / frames
