"""Rows of a vision tower: which states they stand for, and how they ask each other in the frames they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

_ALIKE = 0.75  # groups whose numbers of queries differ by no more than this are padded to one size and asked at once
_OF_ALL_ROWS = ("attention_mask", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


@dataclass(eq=False)
class Rows:
    """The map in force: of all S states of a call to R rows, in the order of their anchors.

    Args:
        target: (S,) the row of each state.
        anchor: (R,) ascending, the state whose place a row takes.
        calls: how they are asked for, by the borders of groups.
        counts: each video's rows and pairs, by the borders of groups.
    """

    target: Tensor
    anchor: Tensor
    calls: dict[tuple[int, ...], Groups] = field(default_factory=dict)
    counts: dict[tuple[int, ...], list[tuple[int, int]]] = field(default_factory=dict)

    def expand(self, rows: Tensor) -> Tensor:
        """(R, ...) -> (S, ...)."""
        return rows.index_select(0, self.target.to(rows.device))

    def anchors(self, states: Tensor) -> Tensor:
        """(S, ...) -> (R, ...)."""
        return states.index_select(0, self.anchor.to(states.device))


@dataclass(eq=False)
class Groups:
    """How rows are asked for in groups of states that see each other (frames or windows).

    Args:
        calls: for each call of the attention function: (n, q) rows whose queries are asked, padded with repeats; (n, k)
            rows whose keys and values they see.
        place: (R,) where each row's answer stands among those of all calls.
    """

    calls: list[tuple[Tensor, Tensor]]
    place: Tensor

    @classmethod
    def of(cls, rows: Rows, borders: list[int], seen: list[Tensor | None]) -> Groups:
        """Args: borders: of the groups among the S states. seen: for each group, its states that are no padding."""
        anchor, target = rows.anchor.cpu(), rows.target.cpu()
        bounds = torch.searchsorted(anchor, torch.tensor(borders)).tolist()
        groups = []
        for number, (first, last) in enumerate(pairwise(bounds)):
            if last > first:
                keys = target[borders[number] : borders[number + 1]]
                visible = seen[number]
                groups.append((first, last, keys if visible is None else keys[visible]))
        groups.sort(key=lambda group: (len(group[2]), group[0] - group[1]))  # few keys first, then many queries
        calls: list[tuple[Tensor, Tensor]] = []
        place, asked = torch.empty(len(anchor), dtype=torch.int64), 0
        at = 0
        while at < len(groups):
            first, last, keys = groups[at]
            width, alike = last - first, [groups[at]]
            for other in groups[at + 1 :]:
                if len(other[2]) != len(keys) or other[1] - other[0] < _ALIKE * width:
                    break
                alike.append(other)
            lasts = torch.tensor([group[1] for group in alike])[:, None]
            queries = torch.tensor([group[0] for group in alike])[:, None] + torch.arange(width)
            real = queries < lasts
            place[queries[real]] = asked + torch.arange(queries.numel()).view_as(queries)[real]
            asked += queries.numel()
            calls.append((queries.minimum(lasts - 1), torch.stack([group[2] for group in alike])))
            at += len(alike)
        return cls(calls, place)

    def attend(
        self,
        run: Callable[..., Any],
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Attention of rows: queries (1, H, R, d), keys and values (1, G, R, d) -> (1, R, H, d).

        Args:
            run: the attention function that the model has chosen.
            module: its module.
            mask: left out, because keys that are padding are not among those of ``calls``.
            kwargs: its further arguments.
        """
        queries, keys, values = (states.transpose(1, 2)[0] for states in (query, key, value))
        kwargs = {name: kept for name, kept in kwargs.items() if name not in _OF_ALL_ROWS}
        answers = [
            run(
                module,
                *(_picked(states, rows) for states, rows in ((queries, asked), (keys, seen), (values, seen))),
                None,
                **kwargs,
            )[0].flatten(0, 1)
            for asked, seen in self.calls
        ]
        return torch.cat(answers).index_select(0, self.place)[None], None

    def to(self, device: torch.device) -> Groups:
        """On a device."""
        return Groups([(queries.to(device), keys.to(device)) for queries, keys in self.calls], self.place.to(device))


def _picked(states: Tensor, rows: Tensor) -> Tensor:
    """(R, H, d) and (n, k) rows -> (n, H, k, d)."""
    return states.index_select(0, rows.flatten()).view(*rows.shape, *states.shape[1:]).transpose(1, 2)


def count_pairs(anchor: Tensor, borders: Sequence[int], sources: Tensor) -> tuple[int, int]:
    """A video's rows, and their pairs with the states that they see.

    Args:
        anchor: (R,) of all rows.
        borders: of the groups of states that see each other.
        sources: (T * P,) the video's.
    """
    group = torch.bucketize(torch.arange(borders[-1]), torch.tensor(borders[1:]), right=True)
    mine = anchor[torch.isin(anchor, sources)]
    asked, seen = (group[states].bincount(minlength=len(borders)) for states in (mine, sources))
    return len(mine), int(asked @ seen)


def real_keys(mask: Any) -> list[Tensor | None] | None:
    """For each frame its states that are no padding, by a mask of keys that is the same for all queries; None: all.

    Raises:
        ValueError: for a mask that is no tensor.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise ValueError(f"cannot merge inside a vision tower whose mask is a {type(mask).__name__}: use sdpa")
    keys = mask if mask.dim() == 2 else mask[:, 0, 0]
    real = (keys == 0 if keys.is_floating_point() else keys.bool()).cpu()
    return None if bool(real.all()) else list(real)


def joined_keys(parts: list[Tensor], states: int) -> Tensor | None:
    """What an observer noted of the keys (F, P, K) of the block before, as (S, K); then there is nothing noted."""
    if not parts:
        return None
    found = torch.cat([part.flatten(0, 1) for part in parts])
    parts.clear()
    return found[:states]
