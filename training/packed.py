"""The language model on packed questions: each question sees the video and itself, nothing else."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers import LlavaOnevisionForConditionalGeneration


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def question_mask(context: int, questions: int, length: int) -> torch.Tensor:
    """Boolean mask (Q * S, context + Q * S): the context, and causally the own question."""
    own = torch.block_diag(*[torch.ones(length, length).tril()] * questions).bool()
    return torch.cat([torch.ones(questions * length, context, dtype=torch.bool), own], 1)


def packed_forward(
    model: LlavaOnevisionForConditionalGeneration,
    visual: torch.Tensor,
    prefix: torch.Tensor,
    ids: torch.Tensor,
    middle: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the language model on B videos with Q questions each, in one pass.

    ``visual`` (B, K, D) kept visual tokens, whose positions are contiguous; ``prefix`` (P,) token ids before the video;
    ``ids`` (B, Q, S) token ids after it. Returns the normed hidden states of the questions (B, Q, S, D) and the visual
    tokens' states after ``middle`` layers (B, K, D). Equals the model's own forward on each question alone.
    """
    language = model.model.language_model
    b, k, d = visual.shape
    q, s = ids.shape[1:]
    start = language.embed_tokens(prefix).expand(b, -1, -1)
    newline = model.model.image_newline.expand(b, 1, d)
    x = torch.cat([start, visual, newline, language.embed_tokens(ids).reshape(b, q * s, d)], 1)
    context = len(prefix) + k + 1
    positions = torch.cat([torch.arange(context), (context + torch.arange(s)).repeat(q)])[None].to(x.device)
    cos, sin = (part[:, None] for part in language.rotary_emb(x, positions))
    mask = question_mask(context, q, s).to(x.device)
    heads = language.config.num_attention_heads
    states = visual
    for index, layer in enumerate(language.layers):
        last = index == len(language.layers) - 1
        if index == middle:
            states = x[:, len(prefix) : len(prefix) + k]
        attention = layer.self_attn
        normed = layer.input_layernorm(x)
        # The context's output of the last layer is read by no one.
        queries = normed[:, context:] if last else normed
        query, key, value = (
            projection(part).view(b, part.shape[1], heads, -1).transpose(1, 2)
            for projection, part in (
                (attention.q_proj, queries),
                (attention.k_proj, normed),
                (attention.v_proj, normed),
            )
        )
        key = _rotate(key, cos, sin)
        if last:
            query = _rotate(query, cos[:, :, context:], sin[:, :, context:])
            x = x[:, context:]
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            query = _rotate(query, cos, sin)
            before = F.scaled_dot_product_attention(
                query[:, :, :context], key[:, :, :context], value[:, :, :context], is_causal=True
            )
            after = F.scaled_dot_product_attention(query[:, :, context:], key, value, attn_mask=mask)
            mixed = torch.cat([before, after], 2)
        x = x + attention.o_proj(mixed.transpose(1, 2).reshape(b, -1, d))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return language.norm(x).view(b, q, s, d), states
