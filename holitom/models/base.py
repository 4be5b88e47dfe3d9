"""The default adapter: where a family keeps its decoder, its vision tower and its videos."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holitom.merge import Merge
from holitom.models.towers import Tower, TowerRecord
from holitom.tokens import VideoTokens

Move = Callable[[Tensor], Tensor]

_ADAPTERS: dict[str, type[Adapter]] = {}
_PLACED = ("inputs_embeds", "attention_mask", "position_ids", "input_ids")  # what the runtime itself moves


@dataclass(frozen=True, eq=False)
class VideoLayout:
    """One encoded video as it lies in the prompt.

    Args:
        frames: T.
        grid: (h, w) of a frame after pooling; N = h * w.
        place: (P,) int64 on the CPU: for each of the video's P placeholder tokens its flat position t * N + n, or -1
            for a token that is no patch (a newline). Every flat position occurs once.
        scores: (T, N) float32 patch scores, or None.
        keys: (T, N, K) float32 patch keys, or None.
        frame_embeddings: (T, E) float32, or None.
        merged: for a video that was merged before the model was called, the map that made its tokens of T * N patches;
            ``place`` then counts that map's outputs.
        tower: what was done inside the vision tower, where that is known.
    """

    frames: int
    grid: tuple[int, int]
    place: Tensor
    scores: Tensor | None = None
    keys: Tensor | None = None
    frame_embeddings: Tensor | None = None
    merged: Merge | None = None
    tower: TowerRecord | None = None

    @cached_property
    def newlines(self) -> int | None:
        """How many tokens that are no patches follow its patches in order; None: it is not in order."""
        count = int((self.place >= 0).sum())
        return len(self.place) - count if self.place[:count].equal(torch.arange(count, device="cpu")) else None

    @classmethod
    def contiguous(cls, frames: int, grid: tuple[int, int], newlines: int = 0, **extras: Any) -> VideoLayout:
        """All patches in order, then ``newlines`` tokens that are none."""
        patches = torch.arange(frames * grid[0] * grid[1], device="cpu")
        return cls(frames, grid, torch.cat([patches, patches.new_full((newlines,), -1)]), **extras)

    def tokens(self, features: Tensor, question: Tensor | None = None) -> VideoTokens:
        """What a method gets to see of the video, on the device of its features (T * N, D).

        Args:
            features: of its patches, by flat position.
            question: (L, D) embeddings of the user's text, on the same device.
        """
        on = {name: getattr(self, name) for name in ("scores", "keys", "frame_embeddings")}
        on = {name: None if value is None else value.to(features.device) for name, value in on.items()}
        tower = None if self.tower is None else self.tower.merge
        patches = features.view(self.frames, -1, features.shape[-1])
        return VideoTokens(patches, self.grid, **on, tower=tower, question=question)


@dataclass(frozen=True, eq=False)
class PatchRecord:
    """What the tapped vision layer showed while one call encoded videos, for F frames of P patches before pooling.

    Args:
        received: (F, P) float32, attention received: mean over heads and queries, or from the class token alone where
            the adapter says so.
        keys: (F, P, K) float32, mean over heads. None when no method asks for it. Frames of different sizes come as (1,
            all patches), one frame after the other.
    """

    received: Tensor | None
    keys: Tensor | None


class Adapter:
    """How to find one family's parts. Subclass, override what differs, and decorate with :func:`register`.

    Args:
        model: a transformers model with ``get_decoder()``, ``base_model.get_video_features`` and a video token.

    Attributes:
        inner: whether tokens may be merged inside the LLM (every decoder layer must be full attention, which the config
            is asked as well).
        scores_from: what the patch scores are, for the table of models.
        encoder: the method of ``base`` that encodes videos.
        modality: what ``generate()`` files its output under.
        windows: whether a video may be encoded a few frames at a time, its tokens being one unbroken row of the prompt;
            then :meth:`unpack` and :meth:`pack` are overridden.
        families: what people call the models, by transformers class, for the same table.
        class_token: whether the vision tower has a class token (key 0) whose attention is the natural patch score.
    """

    inner: ClassVar[bool] = True
    scores_from: ClassVar[str] = "received; last used layer"
    encoder: ClassVar[str] = "get_video_features"
    modality: ClassVar[str] = "video"
    class_token: ClassVar[bool] = False
    windows: ClassVar[bool] = False
    families: ClassVar[dict[str, str]] = {}

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def base(self) -> Any:
        """The module that mixes text and visual embeddings and calls the decoder."""
        return self.model.base_model

    @property
    def decoder(self) -> nn.Module:
        """The language model's stack of decoder layers."""
        decoder: nn.Module = self.model.get_decoder()
        return decoder

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        layers: nn.ModuleList = self.decoder.layers  # type: ignore[assignment]
        return layers

    @property
    def first_inner_layer(self) -> int:
        """The first decoder layer in front of which tokens can be merged."""
        return 1

    @property
    def video_token_id(self) -> int:
        """The id of the placeholder token that stands for one visual token of a video."""
        config = self.model.config
        for name in ("video_token_id", "video_token_index"):
            if getattr(config, name, None) is not None:
                return int(getattr(config, name))
        raise ValueError(f"{type(config).__name__} names no video token: override {type(self).__name__}.video_token_id")

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The attention module of the last vision layer whose output is used, for a call of ``get_video_features``.

        Args:
            arguments: the call's arguments by name, defaults filled in.
        """
        return None

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower | None:
        """The vision tower and its videos, for a call that encodes videos; None: nothing can be merged inside it.

        Args:
            arguments: the call's arguments by name.
            prompt: (B, Q) int64 ids and (B, Q) bool, what of them is real, on the CPU, where they are known: families
                whose frames are images find their videos by them.
        """
        return None

    def shortcuts(self) -> dict[str, Callable[..., Any]]:
        """Methods of ``base`` that a session replaces by faster ones with the same results, bit for bit."""
        return {}

    def patch_mask(self, arguments: dict[str, Any]) -> Tensor | None:
        """(F, P) bool: which keys of :meth:`vision_attention` are patches and not padding; None: all of them."""
        return None

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """How the videos of one call of ``get_video_features`` lie in the prompt, in order.

        Args:
            output: what the call returned.
            arguments: its arguments.
            patches: what the tapped vision layer showed.
        """
        raise TypeError(f"{type(self).__name__} does not say how its videos lie in the prompt: override layouts()")

    def check(self, arguments: dict[str, Any]) -> None:
        """Looks at the arguments of a model call; raises ValueError for what cannot be compressed."""

    def check_generate(self, arguments: dict[str, Any]) -> None:
        """The same for the arguments of ``generate()``, where a method has a stage."""

    def arrange(self, ids: Tensor, valid: Tensor, encoded: list[VideoLayout]) -> tuple[Tensor, list[VideoLayout]]:
        """Which tokens of a batch belong to videos, and to which.

        Args:
            ids: (B, Q) int64 on the CPU.
            valid: (B, Q) bool, what is not padding.
            encoded: what :meth:`layouts` gave.

        Returns:
            (B, Q) bool, the videos' placeholders; and the videos' layouts in the order of the prompt.
        """
        return (ids == self.video_token_id) & valid, encoded

    def require_inner(self, method: str) -> None:
        """Raises ValueError where tokens cannot be merged inside the LLM, because not every layer sees all tokens.

        Args:
            method: the name of the method that merges there.
        """
        kinds = kinds_of_layers(self.decoder.config)
        if not self.inner or kinds != {"full_attention"}:
            found = "" if kinds == {"full_attention"} else f" ({', '.join(sorted(kinds))})"
            raise ValueError(
                f"{type(self.model).__name__} mixes attention with other kinds of layers{found}, so {method} cannot "
                "merge tokens inside it: use a method that acts before the LLM alone (HoliTom: layer=None)"
            )

    def require_windows(self) -> None:
        """Raises TypeError where a video of this family cannot be read in windows, naming the models that can.

        Also where transformers is too old to take videos that are encoded already.
        """
        if self.windows:
            if "mm_encoder_outputs" in inspect.signature(self.model.forward).parameters:
                return
            raise TypeError(
                "this transformers takes no encoded videos, which long ones are: upgrade it to 5.18 or later"
            )
        able = sorted(name for name, adapter in _ADAPTERS.items() if adapter.windows)
        raise TypeError(
            f"{type(self.model).__name__} cannot read a video in windows yet; {', '.join(able)} can: use one of them, "
            "or sample fewer frames and leave window and tokens out"
        )

    def unpack(self, output: Any) -> Tensor:
        """(P, D): the tokens of the one video in what ``get_video_features`` returned, in the order of the prompt."""
        self.require_windows()
        raise TypeError(f"{type(self).__name__} reads videos in windows and must override unpack() and pack()")

    def pack(self, rows: Tensor) -> Any:
        """The opposite of :meth:`unpack`: tokens (P, D) of one video as the model takes encoded videos."""
        return self.unpack(rows)

    def move_arguments(self, kwargs: dict[str, Any], apply: Move, gather: Move, width: int) -> dict[str, Any]:
        """The decoder's further arguments after the batch's tokens have moved.

        Args:
            kwargs: the decoder's keyword arguments.
            width: S, the tokens in a row before.
            apply: merges (B, S, ...) -> (B, L, ...).
            gather: takes each output's anchor, (B, S, ...) -> (B, L, ...).

        Returns:
            All arguments: those with one row per token gathered, deepstack features merged with their tokens.
        """
        moved = dict(kwargs)
        for name, value in kwargs.items():
            if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == width and name not in _PLACED:
                moved[name] = gather(value)
        marked, layers = kwargs.get("visual_pos_masks"), kwargs.get("deepstack_visual_embeds")
        if marked is not None and layers is not None:
            stays, deep = moved["visual_pos_masks"].flatten().nonzero()[:, 0], []
            visual = marked.flatten().byte().argsort(descending=True, stable=True)[: len(layers[0])]
            for values in layers:
                dense = values.new_zeros(marked.numel(), values.shape[-1]).index_copy_(0, visual, values)
                deep.append(apply(dense.view(*marked.shape, -1)).flatten(0, 1)[stays])
            moved["deepstack_visual_embeds"] = deep
        return moved


def register(*model_classes: str) -> Any:
    """Class decorator: this adapter serves these transformers classes (``...ForConditionalGeneration``)."""

    def add(adapter: type[Adapter]) -> type[Adapter]:
        for name in model_classes:
            _ADAPTERS[name] = adapter
        return adapter

    return add


def supported() -> dict[str, type[Adapter]]:
    """The registered adapters by transformers class name."""
    return dict(_ADAPTERS)


def kinds_of_layers(config: Any) -> set[str]:
    """The kinds of a decoder's layers, as its config names them or as its sliding window or chunks tell."""
    named = getattr(config, "layer_types", None)
    if named is not None:
        return set(named)
    if getattr(config, "attention_chunk_size", None) is not None:
        return {"chunked_attention"}
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    return {"sliding_attention"} if windowed else {"full_attention"}


def adapter_class(model: Any) -> type[Adapter] | None:
    """The adapter of a model's class or one of its base classes; None where there is none."""
    return next((_ADAPTERS[cls.__name__] for cls in type(model).__mro__ if cls.__name__ in _ADAPTERS), None)


def adapter_for(model: Any) -> Adapter:
    """The adapter of a model, by its class or one of its base classes.

    Raises:
        TypeError: when there is none, naming the class, what works and how to add a family.
    """
    adapter = adapter_class(model)
    if adapter is not None:
        return adapter(model)
    if adapter_class(getattr(model, "thinker", None)) is not None:
        raise TypeError(f"{type(model).__name__} is more than the model that sees videos: pass its part, model.thinker")
    raise TypeError(
        f"holitom has no adapter for {type(model).__name__}. Supported: {', '.join(sorted(_ADAPTERS))}. "
        "To add a family, subclass holitom.models.Adapter and decorate it with @register: see "
        "docs/add_a_model_family.md (and CONTRIBUTING.md)"
    )
