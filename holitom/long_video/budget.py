"""How many tokens each window gets, before the later ones have been read."""

from __future__ import annotations


class Budget:
    """Shares a number of tokens out over the windows of a video, by what each needs, and never gives more.

    What a window needs is the number of its tokens that are not redundant: HoliTom keeps the same share of those
    everywhere in a video, and so does this in the windows of one. What the frames to come will need is taken to be what
    the frames so far needed on average. With ``left`` tokens left,

        grant  =  left * need / (need + mean need of a frame so far * frames to come)

    so that what one window leaves goes to all later ones, the last window gets all that is left, and a video of one
    window gets the whole budget. Every window gets at least one token.

    Args:
        tokens: to be shared out.
        frames: T, expected.
        positions: N, the tokens of a frame.
        shortest: the fewest frames of a window that is not the last.

    Raises:
        ValueError: when there may be more windows than tokens.
    """

    def __init__(self, tokens: int, frames: int, positions: int, shortest: int) -> None:
        self.positions, self.shortest = positions, shortest
        self.left, self.frames_left = tokens, frames
        self._seen = self._needed = 0
        most = self._most_windows()
        if tokens < most:
            raise ValueError(
                f"a budget of {tokens} visual tokens leaves less than one for each of up to {most} windows of "
                f"{frames} frames: give {most} tokens or more, or a longer window"
            )

    def share(self, frames: int, need: int, last: bool) -> int:
        """The tokens of the next window.

        Args:
            frames: of the window.
            need: its tokens that are not redundant.
            last: whether it is the last window.
        """
        self.frames_left = max(0, self.frames_left - frames)
        self._seen += frames
        self._needed += need
        if last:
            grant = self.left
        else:
            coming = self._needed / self._seen * self.frames_left
            grant = int(self.left * need / (need + coming))
            grant = min(max(1, grant), self.left - self._most_windows())
        grant = min(grant, frames * self.positions)
        self.left -= grant
        return grant

    def _most_windows(self) -> int:
        return max(1, -(-self.frames_left // self.shortest))
