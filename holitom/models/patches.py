"""From the values of a vision tower's patches to values of the tokens made of them."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_of_blocks(values: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Mean over squares of ``side`` x ``side`` patches.

    Args:
        values: (F, rows * columns) or (F, rows * columns, K), row by row.
        grid: (rows, columns).
        side: rows and columns of a square, in patches.

    Returns:
        (F, N) or (F, N, K) with N = (rows // side) * (columns // side), row by row; incomplete squares are left out.
    """
    rows, columns = grid[0] // side, grid[1] // side
    tail = values.shape[2:]
    squares = values.reshape(values.shape[0], *grid, *tail)[:, : rows * side, : columns * side]
    return squares.reshape(values.shape[0], rows, side, columns, side, *tail).mean((2, 4)).flatten(1, 2)


def mean_of_packed(values: Tensor, steps: list[tuple[int, int]], side: int) -> list[Tensor]:
    """Mean over merge units, where the patches of a unit follow each other (Qwen-VL's order).

    Args:
        values: (F, P[, K]): all patches of all videos, one frame after the other.
        steps: (T, N) for each video, N in merge units.
        side: a unit has side * side patches.

    Returns:
        (T, N[, K]) for each video.
    """
    units = values.reshape(-1, side * side, *values.shape[2:]).mean(1)
    parts = torch.split(units, [frames * tokens for frames, tokens in steps])
    return [part.view(*step, *part.shape[1:]) for part, step in zip(parts, steps, strict=True)]


def of_each(values: Tensor | None, sizes: list[int]) -> list[Tensor | None]:
    """(F, ...) -> parts of so many frames each; as many times None for None."""
    return [None] * len(sizes) if values is None else list(torch.split(values, sizes))


def window_order(frames: int, grid: tuple[int, int], window: int) -> Tensor:
    """The order in which a tower with square windows works through a video: window by window, rows inside each.

    Args:
        frames: T.
        grid: (h, w) in merge units.
        window: side of a window in merge units.

    Returns:
        (T * h * w,) int64 on the CPU: the flat place t * h * w + row * w + column of the token worked on at each step.
    """
    frame = torch.arange(frames, device="cpu")[:, None, None]
    row, column = torch.arange(grid[0], device="cpu")[:, None], torch.arange(grid[1], device="cpu")[None]
    across = -(-grid[1] // window)
    number = (frame * -(-grid[0] // window) + row // window) * across + column // window
    return number.flatten().argsort(stable=True)


def from_window_order(worked: Tensor, frames: int, grid: tuple[int, int], window: int) -> Tensor:
    """(T, N[, K]) in the order of :func:`window_order` -> the same by place."""
    order = window_order(frames, grid, window).to(worked.device)
    placed = torch.empty_like(worked)
    placed.flatten(0, 1)[order] = worked.flatten(0, 1)
    return placed


def places_of_units(grid: tuple[int, int], side: int, order: Tensor | None = None) -> Tensor:
    """Where in the frame the patches of a tower stand that takes squares of patches one after the other.

    Args:
        grid: (h, w) of squares.
        side: a square has side * side patches.
        order: (h * w,) int64, the squares in the order of the tower; None: row by row.

    Returns:
        (h * w * side**2,) int64 on the CPU: row * columns + column of each patch.
    """
    places = torch.arange(grid[0] * grid[1] * side**2, device="cpu").view(grid[0], side, grid[1], side)
    units = places.permute(0, 2, 1, 3).reshape(grid[0] * grid[1], side**2)
    return (units if order is None else units[order]).flatten()
