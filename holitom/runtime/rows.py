"""Rows of a vision tower: which states they stand for, and how they ask each other in the frames they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holitom.edges import send

_CPU_CALL = 1 << 12  # so many pairs of queries and keys take as long as one more call does, on a CPU
_GPU_CALL = 1 << 19  # and elsewhere
_OF_ALL_ROWS = ("attention_mask", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


@dataclass(eq=False)
class Rows:
    """The map in force: of all S states of a call to R rows, in the order of their anchors.

    Args:
        target: (S,) the row of each state.
        anchor: (R,) ascending, the state whose place a row takes.
        calls: how they are asked for, by the id of the borders of groups.
    """

    target: Tensor
    anchor: Tensor
    calls: dict[int, Groups] = field(default_factory=dict)

    @cached_property
    def on_host(self) -> tuple[Tensor, Tensor]:
        """Target and anchor on the CPU, in one copy."""
        if self.target.device.type == "cpu":
            return self.target, self.anchor
        target, anchor = torch.split(torch.cat([self.target, self.anchor]).cpu(), [len(self.target), len(self.anchor)])
        return target, anchor

    def expand(self, rows: Tensor) -> Tensor:
        """(R, ...) -> (S, ...)."""
        return rows.index_select(0, self.target.to(rows.device))

    def anchors(self, states: Tensor) -> Tensor:
        """(S, ...) -> (R, ...)."""
        return states.index_select(0, self.anchor.to(states.device))


@dataclass(eq=False)
class Groups:
    """How rows are asked for in groups of states that see each other (frames or windows).

    Groups with as many keys, and about as many rows, are asked in one call.

    Args:
        queries: (Q,) rows whose queries are asked, call by call and group by group, padded with repeats.
        keys: (K,) rows whose keys and values are seen, likewise.
        calls: of each call of the attention function the groups, the queries and the keys of each.
        place: (R,) where each row's answer stands among those of all calls.
    """

    queries: Tensor
    keys: Tensor
    calls: list[tuple[int, int, int]]
    place: Tensor

    @classmethod
    def of(cls, rows: Rows, borders: list[int], seen: list[Tensor | None]) -> Groups:
        """Args: borders: of the groups among the S states. seen: for each group, its states that are no padding."""
        (target, anchor), device = rows.on_host, rows.anchor.device
        bounds = torch.searchsorted(anchor, torch.tensor(borders, device="cpu")).tolist()
        by_keys: dict[int, list[tuple[int, int, Tensor]]] = {}
        for number, (first, last) in enumerate(pairwise(bounds)):
            if last > first:
                keys, visible = target[borders[number] : borders[number + 1]], seen[number]
                keys = keys if visible is None else keys[visible]
                by_keys.setdefault(len(keys), []).append((first, last, keys))
        queries, visible_rows, calls = list[Tensor](), list[Tensor](), list[tuple[int, int, int]]()
        place, asked = torch.empty(len(anchor), dtype=torch.int64, device="cpu"), 0
        for count, groups in by_keys.items():
            groups.sort(key=lambda group: group[0] - group[1])  # many queries first
            costs = (_CPU_CALL if device.type == "cpu" else _GPU_CALL) / max(1, count)
            for begin, end in _calls([last - first for first, last, _ in groups], costs):
                firsts, lasts = (
                    torch.tensor([group[at] for group in groups[begin:end]], device="cpu")[:, None] for at in (0, 1)
                )
                index = firsts + torch.arange(int(lasts[0] - firsts[0]), device="cpu")
                real = index < lasts
                place[index[real]] = asked + torch.arange(index.numel(), device="cpu").view_as(index)[real]
                asked += index.numel()
                queries.append(index.minimum(lasts - 1).flatten())
                visible_rows += [group[2] for group in groups[begin:end]]
                calls.append((*index.shape, count))
        wide, narrow, back = send([torch.cat(queries), torch.cat(visible_rows), place], device)
        return cls(wide, narrow, calls, back)

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
            query: (1, H, R, d).
            key: (1, G, R, d).
            value: (1, G, R, d).
            mask: left out, because keys that are padding are not among those that are seen.
            kwargs: its further arguments.
        """
        kwargs = {name: kept for name, kept in kwargs.items() if name not in _OF_ALL_ROWS}
        sizes = [[groups * each for each in size] for groups, *size in self.calls]
        parts = []
        for states, index, own in ((query, self.queries, 0), (key, self.keys, 1), (value, self.keys, 1)):
            chosen = states.transpose(1, 2)[0].index_select(0, index.to(states.device))
            parts.append(torch.split(chosen, [size[own] for size in sizes]))
        answers = [
            run(module, *(part.unflatten(0, (groups, -1)).transpose(1, 2) for part in given), None, **kwargs)[0]
            for (groups, *_), *given in zip(self.calls, *parts, strict=True)
        ]
        joined = torch.cat([answer.flatten(0, 1) for answer in answers])
        return joined.index_select(0, self.place.to(joined.device))[None], None


def _calls(widths: Sequence[int], costs: float) -> list[tuple[int, int]]:
    """Cuts a list of descending numbers of queries where that costs least: padding to the first of a part, and calls.

    Args:
        widths: of each group.
        costs: of one more call, in queries.
    """
    several = np.unique(-np.asarray(widths), return_counts=True)
    width, ends = -several[0], np.concatenate([[0], np.cumsum(several[1])])
    best, since = np.zeros(len(ends)), [0] * len(ends)
    for end in range(1, len(ends)):
        cost = best[:end] + width[:end] * (ends[end] - ends[:end]) + costs
        since[end] = int(cost.argmin())
        best[end] = cost[since[end]]
    cuts, at = list[tuple[int, int]](), len(ends) - 1
    while at:
        cuts.append((int(ends[since[at]]), int(ends[at])))
        at = since[at]
    return cuts[::-1]


def count_pairs(blocks: Sequence[tuple[Tensor | None, Tensor | range]], sources: Tensor) -> list[int]:
    """Of a video's rows in each block, the pairs with the states that they see. A GPU is waited for.

    Args:
        blocks: (R,) anchors of all rows, None: each state is one; and the borders of the groups of states that see
            each other.
        sources: (T * P,) the video's.
    """
    known, found = dict[tuple[int, int], int](), list[int]()
    for anchor, borders in blocks:
        key = id(anchor), id(borders)
        if key not in known:
            ends = torch.as_tensor(borders, device="cpu")
            group = torch.bucketize(torch.arange(int(ends[-1]), device="cpu"), ends[1:], right=True)
            mine = sources
            if anchor is not None:
                mine = anchor.cpu()
                mine = mine[torch.isin(mine, sources)]
            asked, seen = (group[states].bincount(minlength=len(ends)) for states in (mine, sources))
            known[key] = int(asked @ seen)
        found.append(known[key])
    return found


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
