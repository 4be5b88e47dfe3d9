"""Families whose videos are images to the model: only the text between the frames says that they belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from holitom.models.base import VideoLayout

Joins = Callable[[list[int], list[int], list[int]], bool]
"""(text before the video's first frame, before the frame so far last, before this one) -> it is the next frame."""


def join_frames(
    ids: Tensor, placeholders: Tensor, tiles: list[VideoLayout], joins: Joins
) -> tuple[Tensor, list[VideoLayout]]:
    """Finds the videos among a batch's images.

    Rows that generate() repeats for beams share the tiles of the first of them.

    Args:
        ids: (B, Q) int64 on the CPU.
        placeholders: (B, Q) bool, real image tokens.
        tiles: a layout of one frame for each encoded image or tile of an image, in order.
        joins: whether a single tile goes on with the video before it, by the texts in front of both.

    Returns:
        (B, Q) bool, the image tokens that are frames of videos of two frames or more; these videos' layouts, without
        those of repeated rows.
    """
    used = int(placeholders.sum())
    size = len(tiles[0].place) if tiles else 1
    if used and (not tiles or used % (size * len(tiles))):
        return placeholders, tiles  # they do not fit, which is said where videos are located
    marked, groups = frame_groups(ids, placeholders, size, len(tiles), joins)
    return marked, [_video([tiles[tile] for tile in group]) for group in groups]


def frame_groups(
    ids: Tensor, placeholders: Tensor, size: int, tiles: int, joins: Joins
) -> tuple[Tensor, list[list[int]]]:
    """Which of a batch's encoded images are frames of one video.

    Args:
        ids: as for :func:`join_frames`.
        placeholders: as for it.
        joins: as for it.
        size: the tokens of a tile.
        tiles: how many were encoded.

    Returns:
        (B, Q) bool, the image tokens that are frames of videos of two frames or more; for each of these videos the
        indexes of its tiles, ascending. Nothing where tokens and tiles do not fit.
    """
    marked, videos = torch.zeros_like(placeholders), list[list[int]]()
    used = int(placeholders.sum())
    if not used or not tiles or used % (size * tiles):
        return marked, videos
    repeats, tile = used // (size * tiles), 0
    for number, (row, real) in enumerate(zip(ids.tolist(), placeholders, strict=True)):
        found = [(start, count) for start, count in _runs(real) if count % size == 0]
        first = number % repeats == 0
        group: list[tuple[int, int]] = []  # (start, index of its tile) of the video so far
        labels: list[list[int]] = []
        end = 0
        for start, count in [*found, (-1, 0)]:
            label = row[end:start] if start >= 0 else []
            if not (group and count == size and joins(labels[0], labels[-1], label)):
                if len(group) > 1:
                    for begin, _ in group:
                        marked[number, begin : begin + size] = True
                    if first:
                        videos.append([index for _, index in group])
                group, labels = [], []
            if count == size:
                group.append((start, tile))
                labels.append(label)
            tile, end = tile + count // size, start + count
        if number % repeats != repeats - 1:
            tile -= sum(count for _, count in found) // size
    return marked, videos


def counts_up(first: list[int], before: list[int], label: list[int]) -> bool:
    """Whether two labels differ in a number alone, as ``Frame9:`` and ``Frame10:`` do.

    Args:
        first: ids in front of the video's first frame; may begin with other text.
        before: ids in front of its last frame so far; may begin with other text.
        label: ids in front of the next frame; begins with the token that ends an image.
    """
    same = _common_suffix(before, label)
    if same < 2 or _ends_alike(first, label):
        return False
    old, new = before[:-same], label[:-same]
    for digits in range(1, 5):
        named = new[: len(new) - digits]
        for past in range(1, 5):
            alike = _common_suffix(old[: len(old) - past], named)
            if alike and len(named) > 1 and len(named) - alike <= 2:  # the image's end, and at most a line break
                return True
    return False


def tells_time(first: list[int], before: list[int], label: list[int]) -> bool:
    """Whether two labels are the same but for up to five tokens in their middle, as ``Frame from 00:59:`` and 01:00.

    Args:
        first: as for :func:`counts_up`.
        before: as for it.
        label: as for it.
    """
    text = label[1:]
    if len(text) < 7 or len(before) < len(text):
        return False
    same = [old == new for old, new in zip(before[-len(text) :], text, strict=True)]
    return all(same[-3:]) and all(same[1:3]) and same.count(False) <= 6  # line breaks before the first may differ


def _ends_alike(first: list[int], label: list[int]) -> bool:
    """Whether name and number in ``label`` are the first frame's again: another video begins."""
    return _common_suffix(first, label) >= len(label) - 2


def _common_suffix(a: list[int], b: list[int]) -> int:
    count = 0
    while count < min(len(a), len(b)) and a[-count - 1] == b[-count - 1]:
        count += 1
    return count


def _runs(real: Tensor) -> list[tuple[int, int]]:
    """(start, length) of the runs of True in (Q,) bool."""
    edges = torch.diff(torch.nn.functional.pad(real.int(), (1, 1)))
    starts, ends = (edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist()
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]


def _video(frames: list[VideoLayout]) -> VideoLayout:
    """One layout of several of one frame."""
    size = frames[0].grid[0] * frames[0].grid[1]
    place = torch.cat([frame.place + number * size for number, frame in enumerate(frames)])
    return replace(
        frames[0],
        frames=len(frames),
        place=place,
        scores=_stack([frame.scores for frame in frames]),
        keys=_stack([frame.keys for frame in frames]),
    )


def _stack(values: list[Tensor | None]) -> Tensor | None:
    known = [value for value in values if value is not None]
    return torch.cat(known) if known else None
