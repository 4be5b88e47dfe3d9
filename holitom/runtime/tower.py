"""A vision tower that works on rows: merged patches inside it, and every patch's state again behind it.

A stage inside the tower is a :class:`~holitom.Merge` of a video's T*P patches that drops none. From the block in front
of which it acts, the tower works on R rows. Each is asked for once: its query comes from the frame (or window) of its
anchor, and every frame shows all its places as keys and values, each through the row that it went to. Where something
other than the next block reads a block's output, every patch gets its row's state. So whatever comes behind the tower
sees as many states as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from holitom.edges import in_order
from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.models.base import VideoLayout
from holitom.models.towers import Tower, TowerRecord, TowerVideo
from holitom.runtime.method_patch import bound_arguments
from holitom.runtime.rows import Groups, Rows, count_pairs, joined_keys, real_keys
from holitom.runtime.thread import Observer
from holitom.tokens import TowerStates

_NEVER_ROWS = ("attention_mask", "cu_seqlens", "max_seqlen")


class TowerPass:
    """One call that encodes videos, with a method's stage inside its vision tower. A context manager.

    Only the thread that opened it is affected; everything is restored at its end, after an exception too.

    Args:
        method: the one at work.
        tower: that of this call.
    """

    def __init__(self, method: Method, tower: Tower) -> None:
        self.method, self.tower = method, tower
        self.thread = threading.get_ident()
        self.depth = len(tower.blocks)
        used = self.depth - len(tower.unread)
        self.layers = tuple(layer for layer in method.tower_layers(self.depth) if layer < used and tower.videos)
        self.records = [_record(video) for video in tower.videos]
        first = self.layers[0] if self.layers else self.depth
        attention = tower.attention[first:used]
        self.routed = {module for module in attention if module is not None}
        self.observers: dict[nn.Module, Observer] = {}
        self.keys: list[Tensor] = []
        if "keys" in method.tower_needs:
            for number in self.layers:
                before = tower.attention[number - 1] if number else None
                if before is not None:
                    self.observers[before] = self._note_keys
        self.rows: Rows | None = None
        self.shape: torch.Size | None = None
        self.borders: Tensor | None = None
        self.frames = range(0)
        self.read: dict[int, tuple[Any, list[int]]] = {}
        self.seen: list[Tensor | None] | None = None
        self.blocks: list[tuple[Tensor | None, Tensor | range]] = []  # anchors and borders, to count by
        self._handles: list[Any] = []
        replayed = any(getattr(block, "gradient_checkpointing", False) and block.training for block in tower.blocks)
        if self.layers and replayed and torch.is_grad_enabled():
            raise ValueError(
                f"gradient checkpointing runs the vision tower's blocks again, where {method.name} cannot merge any "
                "more: turn it off for the vision tower, or leave the stage inside it out"
            )
        if self.layers and self.layers[0] == 0 and -1 in tower.reads:
            raise ValueError(
                f"this model reads the states in front of the tower's first block, so {method.name} cannot merge them "
                "there: use layer=1 or later"
            )

    def routes(self, module: nn.Module) -> bool:
        """Whether rows reach this attention module."""
        return self.rows is not None and module in self.routed

    def noted(self, layouts: list[VideoLayout]) -> list[VideoLayout]:
        """The layouts of the call with the records of their videos, each at its (first) layout."""
        found = list(layouts)
        for number, record in enumerate(self.records):
            at = number if self.tower.layouts is None else self.tower.layouts[number]
            found[at] = replace(found[at], tower=record)
        return found

    def __enter__(self) -> TowerPass:
        try:
            used = len(self.tower.blocks) - len(self.tower.unread)
            for number, block in enumerate(self.tower.blocks[:used]):
                if self.layers:
                    self._hook(block.register_forward_pre_hook, self._before, number, with_kwargs=True)
                    if number >= self.layers[0] and number in self.tower.reads:
                        self._hook(block.register_forward_hook, self._after, number, prepend=True)
            if self.layers:
                for first, second in self.tower.mixers:
                    self._hook(first.register_forward_hook, self._spread, None)
                    self._hook(second.register_forward_pre_hook, self._gather, None)
                if self.tower.projector is not None:
                    self._hook(self.tower.projector.register_forward_pre_hook, self._project, None)
                    self._hook(self.tower.projector.register_forward_hook, self._projected, None)
            for block in self.tower.unread:
                self._hook(block.register_forward_pre_hook, _first_state, None, with_kwargs=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        used = self.depth - len(self.tower.unread)
        for video, record in zip(self.tower.videos, self.records, strict=True):
            if self.layers:
                record.count = partial(count_pairs, self.blocks, video.sources.flatten())
            elif self.tower.unread:
                record.rows = [video.sources.numel()] * used
                record.count = partial(list, [video.sources.numel() * video.sources.shape[1]] * used)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.observers.clear()  # they hold this object, whose tensors would wait for the garbage collector
        self.rows = None

    def _hook(
        self, register: Callable[..., Any], method: Callable[..., Any], number: int | None, **options: Any
    ) -> None:
        def hook(module: nn.Module, *args: Any) -> Any:
            if threading.get_ident() != self.thread:
                return None
            return method(module, *args) if number is None else method(number, module, *args)

        self._handles.append(register(hook, **options))

    def _before(self, number: int, block: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """States (F, P, D) or packed (S, D) -> rows (1, R, D) or (R, D), with what belongs to each of them.

        Where nothing has merged, only the borders of the states that see each other are noted.
        """
        arguments = dict(bound_arguments(block.forward, args, kwargs))
        hidden = arguments.pop("hidden_states")
        if number == 0:
            self.shape, self.rows = hidden.shape, None
            self.frames = range(0, hidden.shape[:-1].numel() + 1, hidden.shape[-2])
        assert self.shape is not None
        packed = len(self.shape) == 2
        if packed:
            self.borders = arguments["cu_seqlens"]
        if self.rows is not None or number in self.layers:
            flat = hidden.flatten(0, -2)
            if number in self.layers:
                flat = self._merge(number, flat, arguments.get("attention_mask"))
            elif self.rows is not None and len(flat) == len(self.rows.target):
                flat = self.rows.anchors(flat)  # an earlier block was read: its output is a state for each patch
        self._count()
        if self.rows is None:
            return None
        states = self.shape[:-1].numel()
        moved = {
            name: value if name in _NEVER_ROWS else self._moved(value, states) for name, value in arguments.items()
        }
        if packed:
            moved["cu_seqlens"] = arguments["cu_seqlens"].new_tensor([0, len(flat)])
            if moved.get("max_seqlen") is not None:
                moved["max_seqlen"] = len(flat)
        elif "attention_mask" in moved:
            moved["attention_mask"] = None
        return (flat if packed else flat[None],), moved

    def _moved(self, value: Any, states: int) -> Any:
        """What has an entry for each state -> the same for each row, of its anchor."""
        assert self.rows is not None
        if isinstance(value, tuple):
            return tuple(self._moved(part, states) for part in value)
        if not isinstance(value, Tensor) or value.dim() < 2:
            return value
        if value.shape[0] == states:
            return self.rows.anchors(value)
        if value.shape[:2].numel() == states:
            return self.rows.anchors(value.flatten(0, 1))[None]
        return value

    def _after(self, number: int, block: nn.Module, args: Any, output: Any) -> Any:
        """Rows -> a state for each patch."""
        if self.rows is None:
            return None
        full = self._full(output[0] if isinstance(output, tuple) else output)
        return (full, *output[1:]) if isinstance(output, tuple) else full

    def _full(self, rows: Tensor) -> Tensor:
        assert self.rows is not None
        assert self.shape is not None
        return self.rows.expand(rows.flatten(0, -2)).view(*self.shape[:-1], rows.shape[-1])

    def _spread(self, module: nn.Module, args: Any, output: Tensor) -> Any:
        return None if self.rows is None else self._full(output)

    def _gather(self, module: nn.Module, args: Any) -> Any:
        if self.rows is None:
            return None
        return (self.rows.anchors(args[0].flatten(0, -2)).view(*args[0].shape[:-2], -1, args[0].shape[-1]),)

    def _project(self, module: nn.Module, args: Any) -> Any:
        """The last states are expanded rows: each row is projected once."""
        if self.rows is None or self.shape is None or args[0].shape[:-1] != self.shape[:-1]:
            return None
        return (self.rows.anchors(args[0].flatten(0, -2))[None],)

    def _projected(self, module: nn.Module, args: Any, output: Tensor) -> Any:
        if self.rows is None or output.shape[:2] != (1, len(self.rows.anchor)):
            return None
        for record in self.records:
            record.projected = record.rows[-1]
        return self._full(output)

    def _merge(self, number: int, flat: Tensor, mask: Any) -> Tensor:
        """Asks the method about each video, and moves the states of all into rows."""
        before, device = self.rows, flat.device
        full = flat if before is None or len(flat) == len(before.target) else before.expand(flat)
        states = len(full)
        keys = joined_keys(self.keys, states)
        for video, record in zip(self.tower.videos, self.records, strict=True):
            shape, merged = video.sources.shape, record.merges[-1][1] if record.merges else None
            seen = TowerStates(
                full[video.index].detach().reshape(*shape, -1),
                number,
                self.depth,
                video.grid,
                video.leading,
                video.order,
                merged=merged,
                keys=None if keys is None else keys[video.index].reshape(*shape, -1),
            )
            merge = self.method.merge_tower(seen)
            if not merge.drops_none:
                raise ValueError(
                    f"{self.method.name}.merge_tower dropped patches or split them: every patch needs a row"
                )
            record.merges.append((number, merge))
        maps = [record.merges[-1][1] for record in self.records]
        if all(merge.outputs == merge.inputs for merge in maps):
            return flat
        if before is None:
            self.seen = real_keys(mask)
        state = torch.arange(states, device=device)
        origin = state.clone()  # what is in no video is its own row
        weight = torch.ones(states, dtype=torch.float32, device=device)
        for video, merge in zip(self.tower.videos, maps, strict=True):
            origin[video.index] = state[video.index][merge.anchor][merge.target]
            weight[video.index] = merge.weight
        target, anchor = in_order(origin, states + sum(merge.outputs - merge.inputs for merge in maps))
        self.rows = Rows(target, anchor)
        return Merge(target, weight, anchor)._knowing(states).apply(full)

    def _note_keys(self, query: Tensor, key: Tensor, scale: float) -> None:
        self.keys.append(key.float().mean(1))

    def _count(self) -> None:
        """Writes down each video's rows in this block, and what its pairs of queries and keys are counted by."""
        for video, record in zip(self.tower.videos, self.records, strict=True):
            record.rows.append(record.merges[-1][1].outputs if record.merges else video.sources.numel())
        borders = self.frames if self.borders is None else self.borders
        self.blocks.append((None if self.rows is None else self.rows.anchor, borders))

    # attention --------------------------------------------------------------------------------------------------

    def _groups(self) -> list[int]:
        """The borders of the states that see each other in this block."""
        if self.borders is None:
            return list(self.frames)
        if id(self.borders) not in self.read:  # once: on a GPU, reading waits for all that came before
            self.read[id(self.borders)] = self.borders, [int(border) for border in self.borders.tolist()]
        return self.read[id(self.borders)][1]

    def _asked(self) -> Groups:
        assert self.rows is not None
        key, calls = id(self.borders), self.rows.calls
        if key not in calls:
            borders = self._groups()
            calls[key] = Groups.of(self.rows, borders, self.seen or [None] * (len(borders) - 1))
        return calls[key]

    def attend(
        self, run: Callable[..., Any], module: nn.Module, query: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """See :meth:`Groups.attend`."""
        return self._asked().attend(run, module, query, *args, **kwargs)

    def shown(self, query: Tensor, key: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What an observer of the untouched tower would see: queries and keys (F, H, P, d) of all patches."""
        assert self.rows is not None
        assert self.shape is not None
        full = [self.rows.expand(states[0].transpose(0, 1)).transpose(0, 1)[None] for states in (query, key)]
        if len(self.shape) == 3:
            frames, patches = self.shape[:2]
            queries, keys = (each.reshape(each.shape[1], frames, patches, -1).transpose(0, 1) for each in full)
            return [(queries, keys)]
        lengths = torch.tensor(self._groups(), device="cpu").diff().tolist()
        return list(zip(*(torch.split(states, lengths, dim=2) for states in full), strict=True))


def _record(video: TowerVideo) -> TowerRecord:
    place = torch.arange(video.sources.shape[1], device="cpu") if video.order is None else video.order
    return TowerRecord(len(video.sources), video.grid, video.leading, place)


def _first_state(block: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """One state in place of all, for a block whose output nobody reads."""
    arguments = dict(bound_arguments(block.forward, args, kwargs))
    hidden = arguments.pop("hidden_states")
    return (hidden[:1, :1],), {**arguments, **({"attention_mask": None} if "attention_mask" in arguments else {})}
