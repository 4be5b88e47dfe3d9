"""Multi-axis rotary positions of compressed videos, which are known only once the encoder has run.

vLLM gives every token of a prompt its positions before it has encoded anything. Which places the tokens of a compressed
video take depends on the video's content; where the text after it goes on does not: behind the whole video, as in
transformers. So text and images get their final positions at once, and each placeholder of a video a mark that holds
the position at which the video begins. The encoder's output carries, for each token, its place in the video; when a
chunk of the prompt is run, marks become begin + place.

An encoder's output has the model's dtype, and bfloat16 counts to 256 only. So places travel as digits of base 256.
All functions are plain tensor code and know nothing of vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BASE = 256  # the largest base whose digits bfloat16 holds exactly
DIGITS = 3
CHANNELS = 3 * DIGITS
UNPLACED = 1 << 30  # what a mark is below the begin of its video; fits vLLM's int32


@dataclass(frozen=True, eq=False)
class Media:
    """One image or video among the tokens of a prompt.

    Args:
        offset: its first placeholder.
        length: the number of its placeholders.
        places: (3, S) int64, the positions (time, row, column) of all its S tokens before compression, from 0.
        known: whether its placeholders are these S tokens; otherwise they wait for the encoder.
    """

    offset: int
    length: int
    places: np.ndarray
    known: bool


def grid_places(steps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(3, T * h * w) int64: time, row and column of the tokens of T frames at the times ``steps`` (T,)."""
    place = np.indices((len(steps), *grid)).astype(np.int64)
    place[0] = steps[:, None, None]
    return place.reshape(3, -1)


def prompt_positions(tokens: int, media: Iterable[Media]) -> tuple[Tensor, int]:
    """(3, tokens) int64 positions of a prompt, with marks where videos wait, and vLLM's delta for what follows.

    Args:
        tokens: length of the prompt.
        media: in the order of the prompt.
    """
    positions = np.empty((3, tokens), dtype=np.int64)
    at, begin = 0, 0
    for item in media:
        text = item.offset - at
        positions[:, at : item.offset] = np.arange(begin, begin + text)
        begin += text
        mine = slice(item.offset, item.offset + item.length)
        positions[:, mine] = begin + item.places if item.known else begin - UNPLACED
        at, begin = item.offset + item.length, begin + int(item.places.max()) + 1
    positions[:, at:] = np.arange(begin, begin + tokens - at)
    return torch.from_numpy(positions), begin + tokens - at - tokens


def to_channels(places: Tensor, dtype: torch.dtype) -> Tensor:
    """(3, M) int64 places, each below 256^3 -> (M, CHANNELS) of any floating dtype, exactly."""
    digits = [places // BASE**power % BASE for power in range(DIGITS)]
    return torch.cat(digits).T.to(dtype)


def from_channels(rows: Tensor) -> Tensor:
    """(M, CHANNELS) -> (3, M) int64: what :func:`to_channels` was given."""
    digits = rows.T.long().reshape(DIGITS, 3, -1)
    total = digits[-1]
    for digit in digits[:-1].flip(0):
        total = total * BASE + digit
    return total


def place_videos(positions: Tensor, waiting: Tensor, places: Tensor, computed: int) -> Tensor:
    """Positions with the marks resolved for which the encoder's output is there. No synchronisation.

    A mark that has been resolved before (a request that was preempted and starts again) keeps its position: the
    encoder's output is the same each time.

    Args:
        positions: (3, N) of a whole prompt.
        waiting: (N,) bool, the placeholders of its videos.
        places: (3, R), the places of the R placeholders from ``computed`` on, in order.
        computed: how many of the prompt's tokens have been run.
    """
    upcoming = waiting.clone()
    upcoming[:computed] = False
    row = upcoming.cumsum(0) - 1
    take = upcoming & (row < places.shape[1]) & (positions[0] < 0)
    placed = positions + UNPLACED + places[:, row.clamp(0, places.shape[1] - 1)].to(positions.dtype)
    return torch.where(take, placed, positions)


def delta(positions: Tensor) -> int:
    """What vLLM adds to the index of a generated token to get its position: they follow the last token of the prompt.

    0 as long as that one waits itself; then nothing is generated either.
    """
    last = int(positions[:, -1].max())
    return last + 1 - positions.shape[1] if last >= 0 else 0
