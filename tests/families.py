"""Tiny random models of every supported family, and prompts for them as their processors would write them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText, CLIPVisionConfig, SiglipVisionConfig

PAD, VIDEO, IMAGE, START, END, VIDEO_START, VIDEO_END = 0, 120, 121, 122, 123, 124, 125
LABEL = 110  # ids 100..109 are digits
AUDIO, AUDIO_START, AUDIO_END = 116, 117, 118
TEXT = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": None,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
WIDE_MROPE = {**MROPE, "partial_rotary_factor": 1.0}
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
    "video_start_token_id": VIDEO_START,
    "video_end_token_id": VIDEO_END,
}
AUDIO_TOKENS = {
    "image_token_index": IMAGE,  # as Qwen2.5-Omni calls them
    "video_token_index": VIDEO,
    "audio_token_index": AUDIO,
    "audio_token_id": AUDIO,
    "audio_start_token_id": AUDIO_START,
    "audio_end_token_id": AUDIO_END,
}
TOWER = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32}
CLIP = CLIPVisionConfig(
    hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=24, patch_size=4
).to_dict()
SIGLIP = SiglipVisionConfig(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=28,
    patch_size=4,
    vision_use_head=False,
).to_dict()

Pixels = dict[str, Tensor]
Piece = tuple[list[int], Pixels]  # ids of a part of a prompt and what the model needs for it


@dataclass(frozen=True)
class Family:
    """How to build one family and its prompts.

    ``video`` and ``image`` take a seed (and frames) and give placeholder ids and pixels; ``grid`` is the (h, w)
    of a clip with an even seed. ``mrope``: position ids have three axes. ``inner``: whether the
    stage inside the LLM works. ``is_patch`` tells patches from newlines and class tokens among so many placeholders.
    """

    config: dict
    video: Callable[[int, int], Piece]
    image: Callable[[int], Piece] | None
    grid: tuple[int, int]
    mrope: bool = False
    inner: bool = True
    deepstack: int = 0
    even: bool = False  # all videos of a call have the same number of frames
    per_row: tuple[str, ...] = ()  # pixel arguments with one entry for each row of the batch
    is_patch: Callable[[int, int], bool] = lambda at, total: True
    typed: bool = True  # of those with several axes: positions follow from token types


def build(name: str, attention: str = "sdpa", seed: int = 0, **text: object) -> torch.nn.Module:
    """The family's model with random weights in which positions matter."""
    torch.manual_seed(seed)
    values = {**FAMILIES_AND_DERIVED[name].config}
    values["text_config"] = {**TEXT, **values["text_config"], **text}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=attention).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, PAD
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # newlines and position tables that start as zeros
                parameter.normal_(std=0.02)
        for layer in model.get_decoder().layers:
            attention_of = getattr(layer, "self_attn", None)
            if attention_of is None:
                continue
            if hasattr(attention_of, "q_norm"):
                attention_of.q_norm.weight.add_(3)
                if getattr(attention_of, "k_norm", None) is not None:
                    attention_of.k_norm.weight.add_(3)
            else:
                attention_of.q_proj.weight *= 20
                attention_of.k_proj.weight *= 20
        _sharpen_tower(model)
    return model


@cache
def model_of(name: str, attention: str = "sdpa") -> torch.nn.Module:
    """:func:`build`, once for all tests of a process: they leave it as it was."""
    return build(name, attention)


def _sharpen_tower(model: torch.nn.Module) -> None:
    """Vision attention that is not uniform, so that patch scores differ."""
    for name, module in model.named_modules():
        if "vision" in name or "visual" in name or "video_tower" in name or "image_tower" in name:
            for part in ("q_proj", "k_proj", "qkv", "q", "k"):
                if isinstance(getattr(module, part, None), torch.nn.Linear):
                    getattr(module, part).weight *= 12
            if isinstance(getattr(module, "weight", None), torch.nn.Parameter) and "patch" in name:
                module.weight *= 5


def words(count: int, seed: int = 0) -> list[int]:
    """Ids of ordinary tokens."""
    return torch.randint(1, 100, (count,), generator=torch.Generator().manual_seed(100 + seed)).tolist()


@dataclass(frozen=True)
class Row:
    """One prompt: its ids, what the model needs for them, and for each video the columns of its patches."""

    ids: list[int]
    pieces: list[Piece]
    videos: list[list[int]]


def row(name: str, *parts: tuple[str, int] | tuple[str, int, int]) -> Row:
    """One prompt: parts are ("words", count[, seed]), ("video", frames[, seed]) and ("image", seed)."""
    family, ids, pieces, videos = FAMILIES_AND_DERIVED[name], [], [], []
    for kind, size, *seed in parts:
        if kind == "words":
            ids += words(size, *seed)
            continue
        piece = family.image(size) if kind == "image" else family.video(size, *(seed or [0]))
        if kind == "video":
            columns = [len(ids) + at for at, token in enumerate(piece[0]) if token in (VIDEO, IMAGE)]
            videos.append([column for at, column in enumerate(columns) if family.is_patch(at, len(columns))])
        ids += piece[0]
        pieces.append(piece)
    return Row(ids, pieces, videos)


def questions(*rows: Row) -> list[list[int]]:
    """The words at the end of each row."""
    return [row.ids[1 + max((at for at, token in enumerate(row.ids) if token >= 100), default=-1) :] for row in rows]


def batch(name: str, *rows: Row) -> dict[str, Tensor]:
    """Left-padded ids, mask, token types and pixels of several prompts, ready for ``generate()``."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[PAD] * (width - len(row.ids)) + row.ids for row in rows])
    mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    family = FAMILIES_AND_DERIVED[name]
    if family.mrope and family.typed:
        inputs["mm_token_type_ids"] = token_types(name, ids)
    if name == "ernie":
        inputs["moe_mm_token_type_ids"] = (inputs["mm_token_type_ids"] > 0).int()
    collected: dict[str, list[Tensor]] = {}
    for one in rows:
        for key in family.per_row:
            held = [piece[1][key] for piece in one.pieces if key in piece[1]]
            collected.setdefault(key, []).append(torch.cat(held) if held else torch.zeros(0))
        for _, pixels in one.pieces:
            for key, value in pixels.items():
                if key not in family.per_row:
                    collected.setdefault(key, []).append(value)
    for key, values in collected.items():
        inputs[key] = _stack(values) if key in family.per_row else torch.cat(values)
    return {key: value for key, value in inputs.items() if value.numel()}


def _stack(values: list[Tensor]) -> Tensor:
    """Rows of unequal length, padded with zeros."""
    shape = next((value.shape[1:] for value in values if value.numel()), ())
    longest = max(len(value) for value in values)
    out = torch.zeros(len(values), longest, *shape)
    for number, value in enumerate(values):
        if value.numel():
            out[number, : len(value)] = value
    return out


def token_types(name: str, ids: Tensor) -> Tensor:
    """0 text, 1 image, 2 video."""
    types = (ids == IMAGE).long() + 2 * (ids == VIDEO).long()
    if name.startswith("glm"):
        inside = (ids == VIDEO_START).long().cumsum(1) > (ids == VIDEO_END).long().cumsum(1)
        types = torch.where(inside & (types == 1), 2, types)
    return types


def three_rows(name: str) -> list[Row]:
    """A batch that is as unequal as the family allows: one video; text alone; two videos and an image."""
    pictured = [("image", 5), ("words", 2, 8)] if FAMILIES_AND_DERIVED[name].image else []
    return [
        row(name, ("words", 3), ("video", 6), ("words", 5, 1)),
        row(name, ("words", 9, 2)),
        row(
            name,
            ("words", 2, 3),
            ("video", 6 if FAMILIES_AND_DERIVED[name].even else 4, 1),
            ("words", 4, 4),
            *pictured,
            ("video", 6, 2),
            ("words", 3, 5),
        ),
    ]


# clips -------------------------------------------------------------------------------------------------------------


def frames_of(count: int, seed: int, side: int) -> Tensor:
    """(count, 3, side, side): two scenes in which most of the picture stays the same."""
    random = torch.Generator().manual_seed(seed)
    still = torch.randn(1, 3, side, side, generator=random)
    clip = still + 0.02 * torch.randn(count, 3, side, side, generator=random)
    half = side // 2
    clip[:, :, half:, half:] = torch.randn(count, 3, side - half, side - half, generator=random)
    clip[count // 2 :] += torch.randn(1, 3, side, side, generator=random)
    return clip


def patches_of(steps: int, grid: tuple[int, int], values: int, seed: int) -> Tensor:
    """(steps * rows * columns, values), as :func:`frames_of`."""
    random = torch.Generator().manual_seed(seed)
    count = grid[0] * grid[1]
    still = torch.randn(1, count, values, generator=random)
    clip = still + 0.02 * torch.randn(steps, count, values, generator=random)
    clip[:, count // 2 :] = torch.randn(steps, count - count // 2, values, generator=random)
    clip[steps // 2 :] += torch.randn(1, count, values, generator=random)
    return clip.flatten(0, 1)


def number(value: int) -> list[int]:
    """The digits of a number, as a tokenizer would split it."""
    return [100 + int(digit) for digit in str(value)]


# families ----------------------------------------------------------------------------------------------------------


def _clips(tokens: int, side: int, extra: int = 0) -> Callable[[int, int], Piece]:
    def video(frames: int, seed: int = 0) -> Piece:
        return [VIDEO] * (frames * tokens + extra), {"pixel_values_videos": frames_of(frames, seed, side)[None]}

    return video


def _next_image(seed: int) -> Piece:
    tiles = frames_of(3, seed, 24)[None]
    return [IMAGE] * 114, {"pixel_values": tiles, "image_sizes": torch.tensor([[24, 48]])}


def _onevision_image(seed: int) -> Piece:
    return [IMAGE] * 154, {"pixel_values": frames_of(3, seed, 28)[None], "image_sizes": torch.tensor([[28, 56]])}


def _packed(
    grid: tuple[int, int],
    values: int,
    per_step: int,
    side: int = 2,
    stamps: str = "",
    merge: bool = False,
    pairs: bool = False,
    seconds: float | None = None,
) -> Callable[[int, int], Piece]:
    """Videos of flat patches: all tokens in a row, or frame by frame with something between them."""

    def video(frames: int, seed: int = 0) -> Piece:
        steps = max(1, frames // per_step)
        tall = (grid[0] + side * 2 * (seed % 2), grid[1])  # odd seeds have another resolution
        tokens = tall[0] * tall[1] // side**2
        shown = steps // 2 if pairs else steps  # a projector that puts two frames together
        if stamps == "qwen":
            ids = []
            for step in range(steps):
                ids += [LABEL, *number(step), LABEL + 1, START, *[VIDEO] * tokens, END]
        elif stamps == "glm":
            ids = [VIDEO_START]
            for step in range(steps):
                ids += [START, *[IMAGE] * tokens, END, *number(step)]
            ids.append(VIDEO_END)
        elif stamps == "llama":
            ids = []
            for step in range(steps):
                ids += [*([LABEL + 2] if step else []), LABEL, *number(step), LABEL + 1, *[VIDEO] * tokens]
        else:
            ids = [START, *[VIDEO] * (shown * tokens), END]
        pixels = {
            "pixel_values_videos": patches_of(steps, tall, values, seed),
            "video_grid_thw": torch.tensor([[steps, *tall]]),
        }
        if merge:
            pixels["video_merge_sizes"] = torch.tensor([side])
        if seconds is not None:
            pixels["video_second_per_grid"] = torch.tensor([seconds])
        return ids, pixels

    return video


def _packed_image(grid: tuple[int, int], values: int, side: int = 2, merge: bool = False) -> Callable[[int], Piece]:
    def image(seed: int) -> Piece:
        pixels = {
            "pixel_values": patches_of(1, grid, values, seed + 50),
            "image_grid_thw": torch.tensor([[1, *grid]]),
        }
        if merge:
            pixels["image_merge_sizes"] = torch.tensor([side])
        return [START, *[IMAGE] * (grid[0] * grid[1] // side**2), END], pixels

    return image


def _numbered(frames: int, seed: int = 0) -> Piece:
    """InternVL: "Frame1: <img>...</img>" and so on, a line break between two."""
    ids: list[int] = []
    for step in range(frames):
        ids += [*([LABEL + 2] if step else []), LABEL, *number(step + 1), LABEL + 1, START, *[IMAGE] * 16, END]
    return ids, {"pixel_values": frames_of(frames, seed, 32)}


SMOL_SINGLE = [START, LABEL + 5, *[IMAGE] * 16, START]


def _timed(frames: int, seed: int = 0) -> Piece:
    """SmolVLM: a line that introduces the video, and "Frame from 00:01:" before each frame."""
    ids = [*words(6, 77), LABEL + 3]
    for step in range(frames):
        clock = [
            *number(0),
            *number(0),
            LABEL + 1,
            *number(step // 4),
            *number(step % 4),
        ]  # four a second: times repeat
        ids += [LABEL + 4 if step == 0 else LABEL + 3, LABEL, LABEL + 2, *clock, LABEL + 1, *SMOL_SINGLE]
    return [*ids, LABEL + 4], {"pixel_values": frames_of(frames, seed, 32)}


def _positioned(frames: int, seed: int = 0) -> Piece:
    """Gemma 4: patches with places, padded to 135; odd seeds have another resolution."""
    height, width = (12, 9) if seed % 2 == 0 else (9, 12)
    place = torch.tensor([[x, y] for y in range(height) for x in range(width)])
    place = torch.cat([place, place.new_full((135 - len(place), 2), -1)])
    pixels = patches_of(frames, (height, width), 48, seed).view(frames, -1, 48).sigmoid()
    pixels = torch.cat([pixels, torch.zeros(frames, 135 - pixels.shape[1], 48)], 1)
    ids: list[int] = []
    for step in range(frames):
        ids += [*number(step), START, *[VIDEO] * 12, END]
    extras = {"video_position_ids": place.expand(frames, -1, -1), "num_frames_per_video": torch.tensor([frames])}
    return ids, {"pixel_values_videos": pixels, **extras}


def _qwen(model_type: str, vision: dict, text: dict, **options: object) -> Family:
    values = 3 * 2 * vision["patch_size"] ** 2
    stamps, seconds, more = str(options.pop("stamps", "")), options.pop("seconds", None), options.pop("more", {})
    grid = options.pop("grid", (8, 6))
    text_type = options.pop("text_type", f"{model_type}_text")
    return Family(
        {
            "model_type": model_type,
            "vision_config": vision,
            "text_config": {"model_type": text_type, "rope_parameters": MROPE, **text},
            **TOKENS,
            **more,
        },
        _packed(grid, values, 2, stamps=stamps, seconds=seconds),
        options.pop("image", _packed_image((4, 6), values)),
        (grid[0] // 2, grid[1] // 2),
        mrope=True,
        **options,
    )


def _omni(name: str, vision: dict, text: dict, audio: dict, per_second: int, **options: object) -> Family:
    """A thinker; its processor's own limits on sizes ask for large patches."""
    hearing = {
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "d_model": 16,
        "output_dim": 32,
    }
    return _qwen(
        f"{name}_thinker",
        {**TOWER, "patch_size": 28, **vision},
        text,
        text_type=f"{name}_text",
        seconds=0.3,
        typed=False,
        more={
            "audio_config": {**hearing, "num_mel_bins": 8, **audio},
            "position_id_per_seconds": per_second,
            **AUDIO_TOKENS,
        },
        **options,
    )


FAMILIES: dict[str, Family] = {
    "llava_onevision": Family(
        {
            "model_type": "llava_onevision",
            "vision_config": SIGLIP,
            "text_config": {"model_type": "qwen2"},
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "image_grid_pinpoints": [[28, 28], [28, 56]],
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        _clips(16, 28, extra=1),
        _onevision_image,
        (4, 4),
        even=True,
        is_patch=lambda at, total: at < total - 1,
    ),
    "llava_next_video": Family(
        {
            "model_type": "llava_next_video",
            "vision_config": CLIP,
            "text_config": {"model_type": "llama"},
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "image_grid_pinpoints": [[24, 24], [24, 48]],
        },
        _clips(9, 24),
        _next_image,
        (3, 3),
        even=True,
    ),
    "video_llava": Family(
        {
            "model_type": "video_llava",
            "vision_config": CLIP,
            "text_config": {"model_type": "llama"},
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
        },
        _clips(37, 24),
        lambda seed: ([IMAGE] * 36, {"pixel_values_images": frames_of(1, seed, 24)}),
        (6, 6),
        even=True,
        is_patch=lambda at, total: at % 37 > 0,
    ),
    "qwen2_vl": _qwen(
        "qwen2_vl",
        {"depth": 2, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2, "patch_size": 4},
        {},
    ),
    "qwen2_5_vl": _qwen("qwen2_5_vl", {**TOWER, "window_size": 16, "fullatt_block_indexes": [1]}, {}, grid=(10, 6)),
    "qwen3_vl": _qwen(
        "qwen3_vl",
        {**TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        {"head_dim": 8},
        stamps="qwen",
        deepstack=2,
    ),
    "qwen3_vl_moe": _qwen(
        "qwen3_vl_moe",
        {**TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [1]},
        {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        stamps="qwen",
        deepstack=1,
    ),
    "qwen3_5": _qwen(
        "qwen3_5",
        {**TOWER, "num_position_embeddings": 16},
        {
            "head_dim": 8,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 10,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "rope_parameters": WIDE_MROPE,
        },
        stamps="qwen",
        inner=False,
    ),
    "glm4v": _qwen(
        "glm4v",
        {**TOWER, "image_size": 16},
        {"rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}},
        stamps="glm",
        image=None,
    ),
    "video_llama_3": Family(
        {
            "model_type": "video_llama_3",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": 4,
            },
            "text_config": {"model_type": "qwen2"},
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
        },
        _packed((8, 6), 48, 1, stamps="llama", merge=True),
        _packed_image((4, 6), 48, merge=True),
        (4, 3),
    ),
    "internvl": Family(
        {
            "model_type": "internvl",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [32, 32],
                "patch_size": [4, 4],
            },
            "text_config": {"model_type": "qwen2"},
            "image_token_id": IMAGE,
            "tie_word_embeddings": False,
        },
        _numbered,
        lambda seed: ([START, *[IMAGE] * 48, END], {"pixel_values": frames_of(3, seed, 32)}),
        (4, 4),
    ),
    "smolvlm": Family(
        {
            "model_type": "smolvlm",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 4,
            },
            "text_config": {"model_type": "llama"},
            "scale_factor": 2,
            "image_token_id": IMAGE,
        },
        _timed,
        lambda seed: (SMOL_SINGLE, {"pixel_values": frames_of(1, seed, 32)}),
        (4, 4),
        per_row=("pixel_values",),
    ),
    "gemma4": Family(
        {
            "model_type": "gemma4",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "patch_size": 4,
                "pooling_kernel_size": 3,
                "position_embedding_size": 64,
            },
            "text_config": {
                "model_type": "gemma4_text",
                "num_hidden_layers": 6,
                "head_dim": 8,
                "global_head_dim": 8,
                "layer_types": ["sliding_attention", "full_attention"] * 3,
                "sliding_window": 16,
                "num_kv_shared_layers": 2,
                "hidden_size_per_layer_input": 6,
                "vocab_size_per_layer_input": 512,
            },
            "audio_config": None,
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
        },
        _positioned,
        None,
        (4, 3),
        inner=False,
    ),
    "glm4v_moe": _qwen(
        "glm4v_moe",
        {**TOWER, "image_size": 16},
        {
            "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0},
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        stamps="glm",
        image=None,
    ),
    "glm46v": _qwen(
        "glm46v",
        {"model_type": "glm4v_vision", **TOWER, "image_size": 16},
        {"rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}},
        text_type="glm4v_text",
        stamps="glm",
        image=None,
    ),
    "qwen3_5_moe": _qwen(
        "qwen3_5_moe",
        {**TOWER, "num_position_embeddings": 16},
        {
            "head_dim": 8,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 10,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "rope_parameters": WIDE_MROPE,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        stamps="qwen",
        inner=False,
    ),
    "lfm3_vl": Family(
        {
            "model_type": "lfm3_vl",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "patch_size": 4,
            },
            "text_config": {
                "model_type": "lfm3",
                "head_dim": 8,
                "sliding_window": 16,
                "layer_types": ["conv", "sliding_attention", "conv", "full_attention"],
            },
            "projector_hidden_size": 32,
            **{name: value for name, value in TOKENS.items() if not name.startswith("video_s")},
        },
        _packed((8, 6), 3 * 2 * 4 * 4, 2, stamps="qwen"),
        _packed_image((4, 6), 3 * 2 * 4 * 4),
        (4, 3),
        inner=False,
    ),
    "qwen2_5_omni": _omni("qwen2_5_omni", {"window_size": 112, "fullatt_block_indexes": [1]}, {}, {}, 25, grid=(10, 6)),
    "qwen3_omni_moe": _omni(
        "qwen3_omni_moe",
        {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        {"downsample_hidden_size": 8},
        13,  # so that positions are fractions
        deepstack=2,
    ),
}
if "lfm3_vl" not in CONFIG_MAPPING:  # the installed transformers is older than 5.24
    del FAMILIES["lfm3_vl"], FAMILIES["qwen2_5_omni"], FAMILIES["qwen3_omni_moe"]

# Built of the parts of the families above; tests/test_families_derived.py shows the equalities for them.
ONE_AXIS = {"rope_type": "default", "rope_theta": 10000.0}
WINDOWED = {**TOWER, "window_size": 16, "fullatt_block_indexes": [1]}
DERIVED: dict[str, Family] = {
    "exaone4_5": replace(
        _qwen(
            "exaone4_5",
            {**WINDOWED, "num_key_value_heads": 1},
            {
                "head_dim": 8,
                "rope_parameters": ONE_AXIS,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "sliding_window": 16,
            },
            text_type="exaone4",
            grid=(10, 6),
            inner=False,
        ),
        mrope=False,
    ),
    "hyperclovax_vision_v2": replace(
        _qwen(
            "hyperclovax_vision_v2",
            {**WINDOWED, "model_type": "qwen2_5_vl_vision"},
            {"head_dim": 8, "rope_parameters": ONE_AXIS},
            text_type="hyperclovax",
            grid=(10, 6),
        ),
        mrope=False,
    ),
    "cosmos3_omni": _qwen(
        "cosmos3_omni",
        {**TOWER, "model_type": "qwen3_vl_vision", "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        {"head_dim": 8},
        text_type="qwen3_vl_text",
        stamps="qwen",
        deepstack=2,
    ),
    "cohere_compass": _qwen(
        "cohere_compass",
        {
            **TOWER,
            "model_type": "cohere_compass_vision",
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        {"rope_parameters": {"full_attention": {**ONE_AXIS, "mrope_section": [1, 1, 2]}}},
        stamps="qwen",
        inner=False,
        deepstack=1,
    ),
}
FAMILIES_AND_DERIVED = ChainMap(FAMILIES, DERIVED)  # a test adds a family
for _name in DERIVED.keys() - CONFIG_MAPPING.keys():
    del DERIVED[_name]  # the installed transformers is older
