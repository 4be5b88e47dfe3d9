"""How many tokens LLaVA-OneVision makes of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnyRes:
    """LLaVA-OneVision's "anyres": an image is seen whole and in tiles (LLaVA-OneVision, section 3.2).

    Attributes:
        grid: patches along one side of a tile, g.
        tile: pixels along one side of a tile.
        canvases: (height, width) in pixels that tiles may make up.
        most_tiles: features of more tiles than this are shrunk to as many ("anyres_max_9": 9).
    """

    grid: int
    tile: int
    canvases: tuple[tuple[int, int], ...]
    most_tiles: int

    def __post_init__(self) -> None:
        if min(self.grid, self.tile, self.most_tiles) < 1:
            raise ValueError(f"grid, tile and most_tiles must be at least 1, got {self}")
        if not self.canvases:
            raise ValueError("canvases must name at least one (height, width)")

    @staticmethod
    def most_tiles_of(vision_aspect_ratio: str) -> int:
        """The number in ``anyres_max_9``."""
        name, _, number = vision_aspect_ratio.rpartition("_")
        if name != "anyres_max" or not number.isdecimal():
            raise ValueError(f"vision_aspect_ratio must be anyres_max_N, got {vision_aspect_ratio!r}")
        return int(number)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """The canvas that keeps most of the image's pixels, and of those the one with the least empty area."""

        def quality(canvas: Sequence[int]) -> tuple[int, int]:
            scale = min(canvas[1] / width, canvas[0] / height)
            used = min(int(width * scale) * int(height * scale), width * height)
            return used, used - canvas[0] * canvas[1]

        return max(self.canvases, key=quality)

    def tokens_whole(self) -> int:
        """Tokens of an image among several: seen whole only, and a newline."""
        return self.grid**2 + 1

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a lone image of ``height`` x ``width`` pixels: whole, then its tiles in rows ended by newlines."""
        canvas_height, canvas_width = self.canvas(height, width)
        rows = self.grid * (canvas_height // self.tile)
        columns = self.grid * (canvas_width // self.tile)
        # The tiles show the image centred on the canvas; patches of the border are taken off, the same on both sides.
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        shrink = math.sqrt(rows * columns / (self.most_tiles * self.grid**2))
        if shrink > 1.1:
            rows, columns = int(rows // shrink), int(columns // shrink)
        return self.grid**2 + rows * columns + rows
