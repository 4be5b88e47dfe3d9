"""EarlyTom's rules: which frames of a segment merge inside the tower, and which tokens stay behind it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.ops.similarity import row_chunk

Spans = list[tuple[int, int]]


def frame_similarity(hidden: Tensor) -> list[list[float]]:
    """(T, S, D) states -> T lists of T: the mean over places of the cosine between two frames. One wait for a GPU."""
    (frames, places, width), total = hidden.shape, hidden.new_zeros(())
    step = row_chunk(frames * width, hidden.device)
    for start in range(0, places, step):
        part = hidden[:, start : start + step]
        wide = part if part.dtype == torch.float64 else part.float()
        unit = torch.nn.functional.normalize(wide, dim=-1).flatten(1)
        total = total + unit @ unit.T
    found: list[list[float]] = (total / places).tolist()
    return found


def cut_frames(similarity: list[list[float]], threshold: float, max_frames: int, momentum: float) -> Spans:
    """Segments of frames like their first one, by a moving mean of the similarity; at most ``max_frames - 1`` long.

    Args:
        similarity: from :func:`frame_similarity`.
        threshold: a mean below it begins a segment.
        max_frames: a segment has fewer frames than this.
        momentum: the weight of the newest frame in that mean.
    """
    spans, first, mean = Spans(), 0, 1.0
    for frame in range(1, len(similarity)):
        mean = momentum * similarity[first][frame] + (1 - momentum) * mean
        if mean < threshold or frame - first + 1 >= max_frames:
            spans.append((first, frame - 1))
            first, mean = frame, 1.0
    return [*spans, (first, len(similarity) - 1)]


def merge_frames(similarity: list[list[float]], spans: Spans) -> Merge:
    """The map of T frames in which, in the middle of each segment, frames that are most alike merge in pairs.

    As published, with what is lost there: the last of a segment's middle frames never counts. Such frames have weight 0
    in the output before them, so that every frame has one.
    """
    target, weight, anchor = list[int](), list[float](), list[int]()

    def emit(frame: int, share: float = 1.0) -> None:
        anchor.append(frame)
        target.append(len(anchor) - 1)
        weight.append(share)

    def join(share: float) -> None:
        target.append(len(anchor) - 1)
        weight.append(share)

    for first, last in spans:
        middle = range(first + 1, last)
        if len(middle) < 2:
            for frame in range(first, last + 1):
                emit(frame)
            continue
        emit(first)
        least = similarity[first][last]
        alike = [similarity[frame][frame + 1] for frame in middle[:-1]]
        at = 0
        while at < len(alike):
            end = at == len(alike) - 1
            if alike[at] > least and (end or alike[at] > alike[at + 1]):
                following = 0.0 if end else alike[at + 1]
                share = alike[at] / (alike[at] + following) if following else 1.0
                emit(middle[at], share)
                join(1 - share)
                at += 2
            else:
                emit(middle[at])
                at += 1
        if at == len(alike):
            join(0.0)  # the middle frame that is left over
        emit(last)
    return Merge(
        torch.tensor(target, device="cpu"),
        torch.tensor(weight, dtype=torch.float32, device="cpu"),
        torch.tensor(anchor, device="cpu"),
    )._knowing(len(target))


def of_patches(frames: Merge, patches: int) -> Merge:
    """A map of T frames as the map of their T*P patches, each place for itself."""
    place = torch.arange(patches, device=frames.target.device)
    return Merge(
        (frames.target[:, None] * patches + place).flatten(),
        frames.weight.repeat_interleave(patches),
        (frames.anchor[:, None] * patches + place).flatten(),
    )


def select_tokens(attention: Tensor, spans: Sequence[tuple[int, int]], retention: float) -> Tensor:
    """Of each segment's first and last frame the tokens with most attention, of the frames between the most attended
    one of each of equally long stretches.

    Args:
        attention: (T, N) what each token receives.
        spans: first and last frame of each segment.
        retention: the share of tokens that stays.

    Returns:
        (M,) int64 flat positions t * N + n, ascending.
    """
    positions = attention.shape[1]
    outer = -(-positions * retention // 1)
    ranked = attention.topk(min(positions, int(outer)), dim=1).indices.sort(dim=1).values
    count = max(1, round(positions * retention))
    sizes = [positions // count + (part < positions % count) for part in range(count)]
    ends = torch.tensor(sizes, device="cpu").cumsum(0)[:, None].to(attention.device, non_blocking=True)
    starts = torch.tensor([0, *sizes[:-1]], device="cpu").cumsum(0).to(attention.device, non_blocking=True)
    places = starts[:, None] + torch.arange(max(sizes), device=attention.device)
    inside, places = places < ends, places.clamp(max=positions - 1)
    best = attention[:, places].masked_fill(~inside, -torch.inf).argmax(-1) + starts
    kept = []
    for first, last in spans:
        for frame in range(first, last + 1):
            chosen = ranked if frame in (first, last) or last - first < 2 else best
            kept.append(chosen[frame] + frame * positions)
    return torch.cat(kept)


def effective_retention(retention: float, frames_before: int, frames: int, positions: int) -> float:
    """The share of the tokens of the merged frames that makes ``retention`` of all frames', at most 1."""
    total = frames_before * positions
    return min(retention / ((total - (frames_before - frames) * positions) / total), 1.0)
