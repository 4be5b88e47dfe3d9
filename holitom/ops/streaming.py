"""Segmentation of a video that does not end soon: links come in pieces, windows of finished segments go out.

**What is lost at a border.** A segment of w frames with c static positions saves (w - 1) * c tokens. Cut by b borders,
its b + 1 pieces save at least (w - 1 - b) * c, because whatever is static throughout is static in every piece. So one
border costs a segment at most its c, and c is at most the number of positions that are linked across that border. With
V* the global optimum, V_k the optimum of window k, and l_b the positions linked across the border behind a window,

    V* - sum of l_b  <=  sum of V_k  <=  V*

which no better bound in the l_b can replace: where everything is static, the left side is met.

**Where to put the borders.** Each window ends behind one of the last m = ceil(W / 2) of its W frames, wherever the
fewest positions are linked. Borders of different windows are then chosen among different places, so the sum of l_b is
at most 1/m of the sum of l over all places. And V* is at least half of that sum: cut the video into pairs of frames,
beginning with an even or with an odd one, and one of the two saves so much. Hence, whatever the video,

    sum of V_k  >=  (1 - 2 / ceil(W / 2)) * V*

and nothing is lost wherever a scene cut lies within those m places. Windows of one fixed length promise no share of V*
at all: borders may fall into every pair of equal frames that there is.

**Why not exactly.** No finite look-ahead suffices, however short the static runs: pairs of frames that save 5 tokens
each may begin with frame 0 or, if frames 1 and 2 save 6, with frame 1, and which is better depends on whether the
number of frames is even, in ever so long a video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from holitom.ops.segmentation import Segmentation, segment_links


@dataclass(frozen=True)
class Window:
    """A stretch of a video that is segmented by itself.

    Args:
        first: its first frame, counted from the start of the video.
        last: its last frame, inclusive.
        cut: its segments, with frames counted from the start of the video; the optimum for these frames.
        at_stake: positions linked across the border behind it, 0 for the last window: the most tokens that this border
            can make redundant ones cost.
    """

    first: int
    last: int
    cut: Segmentation
    at_stake: int

    @property
    def frames(self) -> int:
        """How many frames the window has."""
        return self.last - self.first + 1


class SegmentStream:
    """Cuts a video of any length into windows, and each window into the segments that save most. See the module.

    Holds at most ``window`` links of each position.

    Args:
        window: W, the most frames of a window.
        shortest: the fewest frames of a window that is not the last; None: W // 2 + 1. W itself: windows of one length.
        max_frames: the longest segment in frames; None: any.

    Raises:
        ValueError: when one of them is out of range.
    """

    def __init__(self, window: int, shortest: int | None = None, max_frames: int | None = None) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window={window!r} is no number of frames: give 1 or more")
        shortest = window // 2 + 1 if shortest is None else shortest
        if not 1 <= shortest <= window:
            raise ValueError(f"shortest={shortest!r} must lie in 1..{window}, the length of a window")
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames={max_frames} is no segment length: give 1 or more, or None")
        self.window, self.shortest, self.max_frames = window, shortest, max_frames
        self.redundant, self.at_stake = 0, 0
        self._first = 0
        self._links: np.ndarray | None = None
        self._finished = False

    def push(self, links: Tensor) -> list[Window]:
        """Takes the links to the next t frames (the first frame of a video needs none) and gives what is finished.

        Args:
            links: (t, N) bool, on any device (one transfer).

        Raises:
            TypeError: when ``links`` is not a bool tensor.
            ValueError: when its shape does not fit, or the video has been finished.
        """
        if not isinstance(links, Tensor) or links.dtype != torch.bool:
            kind = links.dtype if isinstance(links, Tensor) else type(links).__name__
            raise TypeError(f"a stream takes bool tensors (t, N) of static links, got {kind}: use cosine > threshold")
        known = self._links
        if links.dim() != 2 or (known is not None and links.shape[1] != known.shape[1]):
            wanted = "(t, N)" if known is None else f"(t, {known.shape[1]})"
            raise ValueError(f"links must have shape {wanted}: pairs of frames, positions; got {tuple(links.shape)}")
        if self._finished:
            raise ValueError("this video has been finished: make another SegmentStream for another one")
        found = []
        for new in np.split(links.cpu().numpy(), range(self.window, len(links), self.window)):
            known = new if known is None else np.concatenate([known, new])
            while len(known) >= self.window:
                across = known[self.shortest - 1 : self.window].sum(1)
                length = self.window - int(across[::-1].argmin())  # of equally good borders the last
                found.append(self._close(known[: length - 1], int(known[length - 1].sum())))
                known = known[length:]
        self._links = known
        return found

    def finish(self) -> list[Window]:
        """What is left: the last window, always one."""
        rest = np.zeros((0, 0), dtype=bool) if self._links is None else self._links
        self._finished = True
        return [self._close(rest, 0)]

    def _close(self, links: np.ndarray, at_stake: int) -> Window:
        cut, first = segment_links(links, self.max_frames), self._first
        moved = Segmentation([(begin + first, end + first) for begin, end in cut.spans], cut.gains)
        self._first += len(links) + 1
        self.redundant += cut.redundant
        self.at_stake += at_stake
        return Window(first, self._first - 1, moved, at_stake)


def segment_stream(
    chunks: Iterable[Tensor], window: int, shortest: int | None = None, max_frames: int | None = None
) -> Iterator[Window]:
    """:class:`SegmentStream` over an iterable of links (t, N): windows as soon as they are finished."""
    stream = SegmentStream(window, shortest, max_frames)
    for links in chunks:
        yield from stream.push(links)
    yield from stream.finish()
