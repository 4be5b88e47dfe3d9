"""Builds the untrained tiny model, its tokenizer and its processor files."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from holitom.video.synthetic import COLOURS, SHAPES, SIZE
from holitom.video.synthetic.questions import NUMBERS, QUADRANTS

PATCH = 8
GRID = SIZE // PATCH // 2
CELLS = GRID * GRID
SPECIAL = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
WORDS = (
    "system user assistant what which how many where did does is are the a an and or of its it in at end first last "
    "there colour shape shapes flash flashed appear appeared moving move moves way scenes scene start before after "
    "video object objects describe this that then ? , . left right up down above below yes no none"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>\n{% elif part['type'] == 'image' %}<image>\n{% endif %}"
    "{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer that knows every word of the questions and their answers."""
    words = [*SPECIAL, *dict.fromkeys([*WORDS.split(), *COLOURS, *SHAPES, *NUMBERS, *QUADRANTS])]
    words += [f"<unused{i}>" for i in range(128 - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\bcolor"), "colour")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[?.,]"), "isolated")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 5) -> LlavaOnevisionConfig:
    """Build the configuration: a 3-layer SigLIP tower on 14 x 14 patches and a Qwen2 of ``layers`` layers."""
    vision = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=[[SIZE, SIZE]],
        vision_aspect_ratio="anyres_max_1",
        tie_word_embeddings=True,
    )


def sincos_positions(grid: int, width: int) -> torch.Tensor:
    """Return 2-D sine-cosine position embeddings (grid * grid, width)."""
    quarter = width // 4
    frequency = torch.exp(-math.log(100.0) * torch.arange(quarter) / quarter)
    angle = torch.arange(grid)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], 1)
    rows = line[:, None].expand(grid, grid, -1)
    columns = line[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], -1).reshape(grid * grid, width)


def initialise(model: nn.Module) -> None:
    """Initialise with std 1/sqrt(fan_in), halved for the layers that write to the residual stream.

    The usual 0.02 starves a model this narrow: the features of the tower vanish.
    """
    residual = ("out_proj", "fc2", "o_proj", "down_proj")
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            scale = 0.5 if name.endswith(residual) else 1.0
            nn.init.normal_(module.weight, std=scale * fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)


def build_model(seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    """Build the untrained model in float32, from a seed."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    config._attn_implementation = "sdpa"
    model = LlavaOnevisionForConditionalGeneration(config).float()
    initialise(model)
    with torch.no_grad():
        width = config.vision_config.hidden_size
        positions = model.model.vision_tower.embeddings.position_embedding
        positions.weight.copy_(sincos_positions(SIZE // PATCH, width) * 0.5)
        nn.init.normal_(model.model.image_newline, std=width**-0.5)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


_IMAGE_COMMON = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": SIZE, "width": SIZE},
}


def save(model: LlavaOnevisionForConditionalGeneration, folder: Path) -> None:
    """Write weights (bfloat16 safetensors), tokenizer and processor files to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.save_pretrained(folder)
    # Stored in 16 bits, computed in 32: this small, bfloat16 costs time on a CPU and accuracy everywhere.
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    for part in ("vision_config", "text_config"):
        config[part]["dtype"] = "float32"
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    image = {
        **_IMAGE_COMMON,
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_grid_pinpoints": [[SIZE, SIZE]],
        "do_pad": True,
    }
    video = {**_IMAGE_COMMON, "video_processor_type": "LlavaOnevisionVideoProcessor", "do_sample_frames": False}
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "image_token": "<image>",
        "video_token": "<video>",
        "num_image_tokens": (SIZE // PATCH) ** 2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_1",
    }
    for name, content in (
        ("preprocessor_config.json", {**image, "processor_class": "LlavaOnevisionProcessor"}),
        ("video_preprocessor_config.json", {**video, "processor_class": "LlavaOnevisionProcessor"}),
        ("processor_config.json", processor),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
