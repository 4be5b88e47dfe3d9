"""Tiny checkpoints of families that vLLM's Transformers backend runs, and prompts for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines import clip, metadata
from families import FAMILIES_AND_DERIVED, MROPE, build
from family_processors import VOCABULARY
from family_processors import processor as make_processor
from PIL import Image
from transformers import AutoProcessor

STOCK = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "glm4v": "Glm4vForConditionalGeneration",
    "video_llama_3": "VideoLlama3ForConditionalGeneration",
    "glm4v_moe": "Glm4vMoeForConditionalGeneration",
    "glm46v": "Glm46VForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "exaone4_5": "Exaone4_5_ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
QWEN = ("<|vision_start|><|video_pad|><|vision_end|>", "<|vision_start|><|image_pad|><|vision_end|>")
GLM = ("<|begin_of_video|><|video|><|end_of_video|>", "<|begin_of_image|><|image|><|end_of_image|>")
PLACEHOLDERS = {
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "exaone4_5": QWEN,
    "glm4v": GLM,
    "glm4v_moe": GLM,
    "glm46v": GLM,
    "video_llama_3": ("<|video_pad|>", "<|image_pad|>"),
    "llava_onevision": ("<video>", "<image>"),
}
EQUAL_LENGTHS = ("llava_onevision",)  # whose processor in transformers makes one tensor of all videos


def parts(name: str, image: bool = True, seed: int = 1) -> tuple[Any, ...]:
    """Two videos and an image; without it for transformers, whose GLM takes frames for images where one is there."""
    second = 8 if name in EQUAL_LENGTHS else 6
    pictured = [("image", 3), " and "] if image else []
    return ("look ", ("video", 8, seed), " then ", *pictured, ("video", second, seed + 1), " what?")


def build_checkpoint(name: str, path: Path, heads: int = 1) -> Path:
    """The family's tiny model as vLLM can run it, with its processor."""
    text: dict[str, Any] = {"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 32}
    text["num_hidden_layers"] = 4 if name == "exaone4_5" else 3
    if FAMILIES_AND_DERIVED[name].mrope:
        wide = {"partial_rotary_factor": 1.0} if name.startswith("glm") else {}
        text["rope_parameters"] = {**MROPE, "mrope_section": [8, 4, 4], **wide}
    model = build(name, vocab_size=VOCABULARY, **text)
    if name == "llava_onevision":
        model.config.image_grid_pinpoints = [[28, 28]]  # as its processor has it
    model.save_pretrained(path)
    make_processor(name, path)
    return path


def media(path: Path, given: tuple[Any, ...]) -> tuple[list[Any], list[Any], bool]:
    """The videos and images of a prompt, and whether the processor wants to know the times of frames."""
    videos = [clip(*part[1:])[:, :28, :36] for part in given if part[0] == "video"]
    images = [Image.fromarray(clip(1, part[1])[0, :28, :36]) for part in given if part[0] == "image"]
    return videos, images, bool(getattr(AutoProcessor.from_pretrained(path).video_processor, "do_sample_frames", False))


def text_of(name: str, given: tuple[Any, ...]) -> str:
    video, image = PLACEHOLDERS[name]
    words = [part if isinstance(part, str) else video if part[0] == "video" else image for part in given]
    return f"user: {''.join(words)}\nassistant:"


def prompt(name: str, path: Path, *given: Any) -> dict[str, Any]:
    """As ``LLM.generate`` takes it."""
    videos, images, timed = media(path, given)
    known = [(each, metadata(len(each))) if timed else each for each in videos]
    held = {key: value for key, value in (("video", known), ("image", images)) if value}
    return {"prompt": text_of(name, given), "multi_modal_data": held}


def backend(name: str, config: Any) -> dict[str, Any]:
    """vLLM's options for the Transformers backend, with holitom or stock."""
    return (
        {"hf_overrides": config.hf_overrides(STOCK[name], backend=True)} if config else {"model_impl": "transformers"}
    )
