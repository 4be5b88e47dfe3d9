"""Each family's own processor, tiny, with a tokenizer of bytes made on the spot."""

from __future__ import annotations

from pathlib import Path

import transformers
from families import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    END,
    IMAGE,
    PAD,
    START,
    VIDEO,
    VIDEO_END,
    VIDEO_START,
    build,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoProcessor, PreTrainedTokenizerFast

VOCABULARY = 512
LLAVA = {"<video>": VIDEO, "<image>": IMAGE}
QWEN = {"<|vision_start|>": START, "<|vision_end|>": END, "<|video_pad|>": VIDEO, "<|image_pad|>": IMAGE}
HEARD = {"<|AUDIO|>": AUDIO, "<|audio_bos|>": AUDIO_START, "<|audio_eos|>": AUDIO_END}
OMNI = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
GLM = {
    "<|begin_of_image|>": START,
    "<|end_of_image|>": END,
    "<|image|>": IMAGE,
    "<|video|>": VIDEO,
    "<|begin_of_video|>": VIDEO_START,
    "<|end_of_video|>": VIDEO_END,
}
INTERN = {"<img>": START, "</img>": END, "<IMG_CONTEXT>": IMAGE, "<video>": VIDEO}
SMOL = {"<fake_token_around_image>": START, "<global-img>": 127, "<image>": IMAGE, "<video>": VIDEO}
GEMMA = {
    "<|image>": START,
    "<image|>": END,
    "<|image|>": IMAGE,
    "<|video|>": VIDEO,
    "<|audio|>": 126,
    "<|audio>": 127,
    "<audio|>": 128,
}

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}HERE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def tokenizer(special: dict[str, int], named: dict[str, str]) -> PreTrainedTokenizerFast:
    """Every byte is a token, ids from 200; ``special`` tokens have the ids that the tiny models know."""
    alphabet = {letter: 200 + number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(vocab={"<pad>": PAD, **special, **alphabet}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<pad>", *special])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", padding_side="left", extra_special_tokens=named
    )


def processor(name: str, folder: Path) -> object:
    """The processor, after a round through its files as :class:`AutoProcessor` reads them."""
    made = _make(name)
    made.save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def checkpoint(name: str, folder: Path) -> Path:
    """The family's tiny model with its processor, as a checkpoint on disk."""
    processor(name, folder)
    build(name, vocab_size=VOCABULARY).save_pretrained(folder)
    return folder


def _make(name: str) -> object:
    square = {"size": {"height": 24, "width": 24}, "crop_size": {"height": 24, "width": 24}}
    edges = {"size": {"shortest_edge": 64, "longest_edge": 16384}}
    packed = {**edges, "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    template = {"chat_template": TEMPLATE.replace("HERE", "<video>")}
    qwen = {"chat_template": TEMPLATE.replace("HERE", "<|vision_start|><|video_pad|><|vision_end|>")}
    if name == "llava_onevision":
        size = {"height": 28, "width": 28}
        return transformers.LlavaOnevisionProcessor(
            transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[28, 28]]),
            tokenizer(LLAVA, {}),
            transformers.LlavaOnevisionVideoProcessor(size=size),
            num_image_tokens=49,
            vision_feature_select_strategy="full",
            **template,
        )
    if name == "llava_next_video":
        return transformers.LlavaNextVideoProcessor(
            transformers.LlavaNextVideoVideoProcessor(**square),
            transformers.LlavaNextImageProcessor(**square),
            tokenizer(LLAVA, {}),
            patch_size=4,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            **template,
        )
    if name == "video_llava":
        return transformers.VideoLlavaProcessor(
            transformers.VideoLlavaImageProcessor(**square),
            transformers.VideoLlavaVideoProcessor(**square),
            tokenizer(LLAVA, {}),
            patch_size=4,
            **template,
        )
    if name in ("qwen2_vl", "qwen2_5_vl", "exaone4_5"):
        kind = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "exaone4_5": "Exaone4_5_"}[name]
        return getattr(transformers, f"{kind}Processor")(
            transformers.Qwen2VLImageProcessor(**packed),
            tokenizer(QWEN, {}),
            transformers.Qwen2VLVideoProcessor(**packed),
            **qwen,
        )
    if name in ("qwen2_5_omni", "qwen3_omni_moe"):
        kind = getattr(transformers, "Qwen2_5OmniProcessor" if name == "qwen2_5_omni" else "Qwen3OmniMoeProcessor")
        large = {**packed, "patch_size": 28}  # by class attributes, its videos have 100,000 pixels and more
        return kind(
            image_processor=transformers.Qwen2VLImageProcessor(**large),
            video_processor=transformers.Qwen2VLVideoProcessor(**large),
            feature_extractor=transformers.WhisperFeatureExtractor(feature_size=8),
            tokenizer=tokenizer({**QWEN, **HEARD}, OMNI),
            **qwen,
        )
    if name.startswith("qwen3") or name == "lfm3_vl":
        kind = transformers.Lfm3VlProcessor if name == "lfm3_vl" else transformers.Qwen3VLProcessor
        return kind(
            transformers.Qwen2VLImageProcessor(**packed),
            tokenizer(QWEN, {}),
            transformers.Qwen3VLVideoProcessor(**packed),
            **qwen,
        )
    if name in ("glm4v", "glm4v_moe", "glm46v"):
        here = "<|begin_of_video|><|video|><|end_of_video|>"
        kind = "Glm46V" if name == "glm46v" else "Glm4v"
        return getattr(transformers, f"{kind}Processor")(
            getattr(transformers, f"{kind}ImageProcessor")(**packed),
            tokenizer(GLM, {}),
            getattr(transformers, f"{kind}VideoProcessor")(**packed),
            chat_template=TEMPLATE.replace("HERE", here),
        )
    if name == "video_llama_3":
        single = {**packed, "temporal_patch_size": 1}
        return transformers.VideoLlama3Processor(
            transformers.VideoLlama3ImageProcessor(**single),
            tokenizer(QWEN, {}),
            transformers.VideoLlama3VideoProcessor(**single, use_token_compression=False),
            chat_template=TEMPLATE.replace("HERE", "<|video_pad|>"),
        )
    if name == "internvl":
        size = {"size": {"height": 32, "width": 32}}
        named = {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
        return transformers.InternVLProcessor(
            transformers.GotOcr2ImageProcessor(**size),
            tokenizer(INTERN, named),
            transformers.InternVLVideoProcessor(**size),
            image_seq_length=16,
            **template,
        )
    if name == "smolvlm":
        size = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
        return transformers.SmolVLMProcessor(
            transformers.SmolVLMImageProcessor(**size),
            tokenizer(SMOL, {}),
            transformers.SmolVLMVideoProcessor(**size),
            image_seq_len=16,
            **template,
        )
    if name == "gemma4":
        named = {
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
        }
        return transformers.Gemma4Processor(
            transformers.Gemma4AudioFeatureExtractor(),
            transformers.Gemma4ImageProcessor(patch_size=4),
            tokenizer(GEMMA, named),
            transformers.Gemma4VideoProcessor(patch_size=4, max_soft_tokens=70),
            chat_template=TEMPLATE.replace("HERE", "<|video|>"),
        )
    raise ValueError(name)
