"""The one way in which methods before the LLM keep an exact number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.ops.budget import fit_count, keep_exactly
from holitom.tokens import VideoTokens, check_share, exact_count


@dataclass(frozen=True)
class ExactMethod(Method):
    """A method before the LLM that keeps exactly ``exact_count(T, (h, w), retention)`` tokens on request.

    A subclass has the fields ``retention`` and ``exact``, says what it keeps and which tokens are worth most
    (:meth:`choose`), and how many it keeps by itself (:meth:`own_count`). With ``exact=True`` that choice is changed
    as little as possible: dropped tokens of the highest worth come back, kept ones of the lowest go.

    Raises:
        ValueError: when the retention is out of range, or ``exact=True`` has none.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        retention = self._retention
        if retention is not None:
            check_share("retention", retention)
        elif self._exact:
            name = type(self).__name__
            raise ValueError(f"exact=True needs a retention: {name}(retention=0.3, exact=True)")

    @property
    def _retention(self) -> float | None:
        return getattr(self, "retention", None)

    @property
    def _exact(self) -> bool:
        return getattr(self, "exact", False)

    def choose(self, video: VideoTokens) -> tuple[Merge | Tensor | None, Tensor]:
        """What this method keeps by itself.

        Returns:
            a map of S = T*N tokens; or (S,) bool, the tokens that stay, for a method that merges none; or None, for
            one that keeps those of the highest worth.
            (S,) floating point, what each token is worth as a token of its own. Not a number: least of all.
        """
        raise NotImplementedError(f"{type(self).__name__} must override choose or merge_video")

    def own_count(self, frames: int, grid: tuple[int, int]) -> int | None:
        """How many tokens stay of T frames of (h, w) positions without ``exact``; None: it depends on the content.

        A mask from :meth:`choose` is brought to that number. By default the exact count, where the class says
        ``exact_count``.
        """
        if self.exact_count and self._retention is not None:
            return exact_count(frames, grid, self._retention)
        return None

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """See :meth:`Method.token_count`."""
        if self._exact and self._retention is not None:
            return exact_count(frames, grid, self._retention)
        count = self.own_count(frames, grid)
        return super().token_count(frames, grid) if count is None else count

    def merge_video(self, video: VideoTokens) -> Merge:
        """See :meth:`Method.merge_video`."""
        choice, worth = self.choose(video)
        if isinstance(choice, Merge):
            return fit_count(choice, worth, self.token_count(video.frames, video.grid)) if self._exact else choice
        if choice is None or self._exact or self.own_count(video.frames, video.grid) is not None:
            index = keep_exactly(choice, worth, self.token_count(video.frames, video.grid))
        else:
            index = choice.nonzero()[:, 0]
        return Merge.keep(index, worth.numel())
