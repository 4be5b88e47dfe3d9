"""Any family whose processor counts video tokens, on vLLM's Transformers backend, with compressed videos.

There the model is transformers' own, so holitom's adapter for the family says where its parts are, and the vision tower
is encoded, observed and merged inside as in a session with transformers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce
from vllm.model_executor.models.transformers import (
    TransformersMultiModalForCausalLM,
    TransformersMultiModalMoEForCausalLM,
)
from vllm.model_executor.models.transformers.multimodal import (
    MultiModalDummyInputsBuilder,
    MultiModalProcessingInfo,
    MultiModalProcessor,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalFieldConfig, PlaceholderRange
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from holitom.integrations.vllm.architectures import stock_architecture
from holitom.integrations.vllm.compressor import Compressor, TowerLimit
from holitom.integrations.vllm.config import ServingConfig
from holitom.integrations.vllm.placed import PlacedVideos
from holitom.integrations.vllm.positions import UNPLACED, to_channels
from holitom.integrations.vllm.processing import CompressedVideos, VideoShape
from holitom.integrations.vllm.request import RequestSettings
from holitom.integrations.vllm.vllm_names import checked
from holitom.models.base import Adapter, VideoLayout, supported
from holitom.runtime.attention import release
from holitom.runtime.encoder import encode
from holitom.runtime.sequence import Span, row_merge

IDS = "holitom_video_ids"
"""A video's ids before compression among its processed inputs: patches, and the text between frames."""
_TEXT = 32  # at most so many tokens of text stand around a frame
_PLACES = ("video_grid_thw", "second_per_grid_ts")  # what positions inside a video depend on


def _adapter(config: Any, model: Any = None) -> Adapter:
    """The adapter of a model; one of a config alone knows the ids of tokens."""
    name = stock_architecture(config.architectures[0])
    return supported()[name](SimpleNamespace(config=config, base_model=model))


def _patches(config: Any, ids: Tensor) -> Tensor:
    """(S,) bool: which of a video's ids stand for what was encoded. GLM writes frames as images."""
    is_video: Tensor = ids == _adapter(config).video_token_id
    return is_video if bool(is_video.any()) else ids == config.image_token_id


@checked
class Info(MultiModalProcessingInfo):  # type: ignore[misc]
    """Sizes of compressed videos."""

    def get_max_video_tokens(self, seq_len: int, mm_counts: Mapping[str, int]) -> int:
        """What the method keeps of the largest video that vLLM measures with, and the text between its frames."""
        frames = int(self.get_num_frames_with_most_features(seq_len, mm_counts))
        full = int(self._get_max_video_tokens_for_frames(frames))
        return ServingConfig.of_hf_config(self.get_hf_config()).token_count(1, (1, full)) + _TEXT * frames


@checked
class Processor(CompressedVideos, MultiModalProcessor):  # type: ignore[misc]
    """Placeholders of compressed videos, and of the text between their frames."""

    @property
    def video_token(self) -> int:
        """The id of the video token."""
        return _adapter(self.info.get_hf_config()).video_token_id

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Mapping[str, Any]:
        fields = dict(super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs))
        if "video_replacement_ids" in fields:
            sizes = hf_inputs["video_replacement_sizes"].tolist()
            hf_inputs[IDS] = list(torch.split(hf_inputs["video_replacement_ids"], sizes))
            fields[IDS] = MultiModalFieldConfig.batched("video", keep_on_cpu=True)
        return fields

    def video_shape(self, number: int, items: Any, kwargs: Mapping[str, Any]) -> VideoShape:
        """Frames as the model groups them; its grid where it tells, else a square one."""
        item = kwargs["video"][number]
        ids, config = item[IDS].data, self.info.get_hf_config()
        _adapter(config).check({name: element.data for name, element in item.items()})
        encoded = int(_patches(config, ids).sum())
        if "video_grid_thw" in item:
            frames, rows, columns = item["video_grid_thw"].data.tolist()
            side = math.isqrt(frames * rows * columns // encoded)
            grid = rows // side, columns // side
        else:
            frames = len(item["pixel_values_videos"].data)
            grid = (math.isqrt(encoded // frames),) * 2
        return VideoShape(frames, grid, text=len(ids) - frames * grid[0] * grid[1])


class BackendVideos(RequestSettings, PlacedVideos):
    """Mixed into vLLM's classes of the Transformers backend: compresses videos and gives every token its place."""

    supports_multimodal_pruning = True
    requires_sequential_video_encoding = True  # vLLM budgets by what is left of videos: encode them one by one
    config: Any
    model: Any
    model_config: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.family = _adapter(self.config, self.model)
        self.ranks = get_tensor_model_parallel_world_size()
        without_limit = Compressor.of(vllm_config, self.config, None)
        self.compressor = dataclasses.replace(without_limit, limit=TowerLimit.measured(vllm_config))
        for name, faster in self.family.shortcuts().items():
            setattr(self.model, name, faster)

    def _create_hf_to_vllm_mapper(self) -> None:
        """As in vLLM, which looks renamed weights up by the name of the stock architecture."""
        ours = self.config.architectures
        self.config.architectures = [stock_architecture(name) for name in ours]
        try:
            super()._create_hf_to_vllm_mapper()  # type: ignore[misc]
        finally:
            self.config.architectures = ours

    # encoding -----------------------------------------------------------------------------------------------------

    def _process_video_input(self, **kwargs: Any) -> list[Tensor] | None:
        """(M, D[ + CHANNELS]) for each video: the tokens that take its placeholders."""
        if kwargs.get("pixel_values_videos") is None:
            return None
        with gpu_sync_allowed():
            ids = list(kwargs.pop(IDS))
            patches = kwargs.pop("num_video_patches").flatten().tolist()
            tokens = [int(_patches(self.config, each).sum()) for each in ids]
            parts = {name: _of_each(name, value, patches, tokens) for name, value in kwargs.items()}
            return [
                self._compress(each, {name: values[number] for name, values in parts.items()})
                for number, each in enumerate(ids)
            ]

    def _compress(self, ids: Tensor, item: dict[str, Any]) -> Tensor:
        """One video.

        Args:
            ids: (S,) before compression, on the CPU.
            item: the arguments of the encoder.
        """
        pixels = item.pop("pixel_values_videos")
        places = {name: item[name] for name in _PLACES if name in item}
        item.pop("second_per_grid_ts", None)
        clip = pixels.dim() == 5
        frames = pixels.shape[1] if clip else int(item["video_grid_thw"][0, 0])
        rows = 1 if clip else len(pixels) // frames
        features, layouts = [], []
        for first, last in self.compressor.parts(frames, rows):
            part = {name: _of_frames(name, value, frames, first, last) for name, value in item.items()}
            seen = pixels[:, first:last] if clip else pixels[first * rows : last * rows]
            rest, layout = self._encode(seen, part)
            count = layout.frames * layout.grid[0] * layout.grid[1]
            features.append(rest[:count])
            layouts.append(layout)
        whole, [one, *more] = torch.cat(features), layouts
        merge = self.compressor.merge(
            whole,
            frames,
            one.grid,
            self._over_ranks([layout.scores for layout in layouts]),
            self._over_ranks([layout.keys for layout in layouts]),
            None if more or one.tower is None else one.tower.merge,
        )
        return self._assemble(torch.cat([whole, rest[count:]]), merge, ids, places)

    def _encode(self, pixels: Tensor, arguments: dict[str, Any]) -> tuple[Tensor, VideoLayout]:
        """(S, D) the features of some frames in the order of the prompt, newlines last; and how they lie."""
        moved = {
            name: value.to(pixels.device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in arguments.items()
        }
        owner = object()
        try:
            output, layouts = encode(
                self.family,
                self.compressor.config.method,
                self.model.get_video_features,
                (pixels,),
                {**moved, "return_dict": True},
                owner,
            )
        finally:
            release(owner)
        features = output.pooler_output
        features = features if isinstance(features, Tensor) else torch.cat(list(features))
        [layout] = layouts
        return features.flatten(0, -2), layout

    def _over_ranks(self, parts: list[Tensor | None]) -> Tensor | None:
        """Scores or keys of all frames: means over the heads of all ranks, of which each holds as many, or all."""
        known = [part for part in parts if part is not None]
        if not known:
            return None
        values = torch.cat(known)
        return values if self.ranks == 1 else tensor_model_parallel_all_reduce(values) / self.ranks

    def _assemble(self, features: Tensor, merge: Any, ids: Tensor, places: dict[str, Any]) -> Tensor:
        """Merged tokens stand in the run of their anchor, the text between runs stays, as with transformers.

        Args:
            features: (P, D) of all placeholders, in order.
            merge: of the first so many of them; the others are newlines.
            ids: (S,) of the whole video.
            places: what positions inside it depend on.
        """
        device = features.device
        is_patch = _patches(self.config, ids)
        at = torch.arange(len(ids), device="cpu")
        starts = torch.where(is_patch & ~torch.roll(is_patch, 1), at, 0).cummax(0).values
        columns = at[is_patch]
        whole: Tensor = self.embed_input_ids(ids.to(device, non_blocking=True)).to(features.dtype)  # type: ignore[attr-defined]
        whole[columns.to(device, non_blocking=True)] = features
        spanned = columns[: merge.inputs]
        span = Span(spanned.to(device, non_blocking=True), starts[spanned].to(device, non_blocking=True), merge)
        row, *_ = row_merge(len(ids), 0, [span], device)
        tokens = row.apply(whole)
        if not self.model_config.uses_mrope:
            return tokens
        data = {name: SimpleNamespace(data=value[0].cpu()) for name, value in places.items()}
        alone, _ = super().get_mrope_input_positions(  # type: ignore[misc]
            ids.tolist(), [MultiModalFeatureSpec(data, "video", "", PlaceholderRange(0, len(ids), is_patch))]
        )
        return torch.cat([tokens, to_channels(alone.to(device, non_blocking=True)[:, row.anchor], tokens.dtype)], dim=1)

    # positions ----------------------------------------------------------------------------------------------------

    @property
    def placeholder(self) -> int:
        """The id of the video token."""
        return self.family.video_token_id

    @property
    def embedding_width(self) -> int:
        """The width of the LLM."""
        return int(self.config.get_text_config().hidden_size)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Where the model places the prompt before compression, without gaps; marks for videos (:mod:`.positions`)."""
        ids: list[int] = []
        features, spans, at = [], [], 0
        for feature in sorted(mm_features, key=lambda each: each.mm_position.offset):
            span = feature.mm_position
            ids += input_tokens[at : span.offset]
            place = dataclasses.replace(span, offset=len(ids))
            if feature.modality == "video":
                full = feature.data[IDS].data
                place = PlaceholderRange(len(ids), len(full), _patches(self.config, full))
                ids += full.tolist()
            else:
                ids += input_tokens[span.offset : span.offset + span.length]
            features.append(dataclasses.replace(feature, mm_position=place))
            at = span.offset + span.length
            spans.append((place.offset, len(ids), span.length if feature.modality == "video" else None))
        ids += input_tokens[at:]
        whole, after = super().get_mrope_input_positions(ids, features)  # type: ignore[misc]
        parts, at = [], 0
        for begin, end, kept in spans:
            parts.append(whole[:, at:begin])
            mine = whole[:, begin:end]
            parts.append(mine if kept is None else (mine[:, :1] - UNPLACED).expand(-1, kept))
            at = end
        return torch.cat([*parts, whole[:, at:]], dim=1), after + len(ids) - len(input_tokens)


def _of_each(name: str, value: Any, patches: list[int], tokens: list[int]) -> list[Any]:
    """An argument of several videos, for each of them; rows belong to videos, patches or tokens.

    Raises:
        ValueError: where the rows are none of these.
    """
    if not isinstance(value, Tensor):
        return [each[None] if isinstance(each, Tensor) else each for each in value]
    for sizes in ([1] * len(patches), patches, tokens):
        if len(value) == sum(sizes):
            return list(torch.split(value, sizes))
    raise ValueError(
        f"{name} has {len(value)} rows for {len(patches)} videos of {sum(patches)} patches and {sum(tokens)} tokens: "
        "which of them belong to which video is not known"
    )


def _of_frames(name: str, value: Any, frames: int, first: int, last: int) -> Any:
    """An argument of one video of T frames, for the frames first..last - 1."""
    if not isinstance(value, Tensor) or last - first == frames:
        return value
    if name == "video_grid_thw":
        part = value.clone()
        part[:, 0] = last - first
        return part
    each, rest = divmod(len(value), frames)
    return value if rest or not each else value[first * each : last * each]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=MultiModalDummyInputsBuilder)
@checked
class HoliTomTransformers(BackendVideos, TransformersMultiModalForCausalLM):  # type: ignore[misc]
    """vLLM's class, with a method between the vision tower and the LLM."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=MultiModalDummyInputsBuilder)
@checked
class HoliTomTransformersMoE(BackendVideos, TransformersMultiModalMoEForCausalLM):  # type: ignore[misc]
    """vLLM's class for mixtures of experts, with a method between the vision tower and the LLM."""
