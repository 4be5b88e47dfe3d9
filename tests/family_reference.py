"""Compressed generation of any family a second way: one row, no cache, no session, eager attention, from scratch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from families import FAMILIES_AND_DERIVED, Row, batch
from golden import span as made_span
from reference import apply_by_hand, mass_by_hand
from torch import Tensor

from holitom.methods.base import Method
from holitom.runtime import VideoRecord


@dataclass
class Prompt:
    """What a decoder gets for one prompt: one entry for each token.

    ``embeds`` (S, D), ``positions`` (axes, S), ``deep``: for each deepstack layer (S, D), zero beside visual tokens;
    ``extra``: (S, layers, E) or None (Gemma's inputs of each layer); ``spans``: each video's tokens; ``kinds``: (S,) or
    None (ERNIE's kinds of tokens). ``masses``: (S,) what each token counts in attention, or None.
    """

    embeds: Tensor
    positions: Tensor
    deep: list[Tensor]
    extra: Tensor | None
    spans: list[list[int]]
    kinds: Tensor | None = None
    masses: Tensor | None = None


@torch.no_grad()
def whole_prompt(eager: torch.nn.Module, name: str, row: Row, **more: object) -> Prompt:
    """The uncompressed prompt, caught on its way into the decoder. ``more``: further arguments of the model."""
    caught: dict = {}
    handle = eager.get_decoder().register_forward_pre_hook(
        lambda _m, _a, kwargs: caught.update(kwargs), with_kwargs=True
    )
    eager(**batch(name, row), **more)
    handle.remove()
    embeds = caught["inputs_embeds"][0]
    positions = caught.get("position_ids")
    positions = torch.arange(len(embeds))[None] if positions is None else positions
    positions = positions[:, 0] if positions.dim() == 3 else positions
    deep = []
    for values in caught.get("deepstack_visual_embeds") or []:
        dense = torch.zeros_like(embeds)
        dense[caught["visual_pos_masks"][0]] = values
        deep.append(dense)
    extra = caught.get("per_layer_inputs")
    kinds = caught.get("moe_mm_token_type_ids")
    return Prompt(embeds, positions, deep, None if extra is None else extra[0], [], None if kinds is None else kinds[0])


def shortened(whole: Prompt, row: Row, videos: list[VideoRecord]) -> Prompt:
    """The prompt after the stage before the LLM: text in its place, a video's outputs in the run of their anchor."""
    owner = {column: number for number, columns in enumerate(row.videos) for column in columns}
    merged = [
        (
            apply_by_hand(video.merge, whole.embeds[columns]),
            [apply_by_hand(video.merge, deep[columns]) for deep in whole.deep],
        )
        for video, columns in zip(videos, row.videos, strict=True)
    ]
    order: list[tuple[int, int | None, int]] = []  # (place in the full prompt, video, output)
    column = 0
    while column < len(row.ids):
        number = owner.get(column)
        if number is None:
            order.append((column, None, 0))
            column += 1
            continue
        end = column
        while owner.get(end) == number:
            end += 1
        for output, anchor in enumerate(videos[number].merge.anchor.tolist()):
            if column <= row.videos[number][anchor] < end:
                order.append((row.videos[number][anchor], number, output))
        column = end
    places = [place for place, _, _ in order]
    embeds, deep = whole.embeds[places].clone(), [values[places].clone() for values in whole.deep]
    spans: list[list[int]] = [[] for _ in videos]
    for at, (place, number, output) in enumerate(order):
        if number is not None:
            embeds[at] = merged[number][0][output]
            for layer, values in enumerate(deep):
                values[at] = merged[number][1][layer][output]
        for video, columns in enumerate(row.videos):  # newlines and class tokens belong to the span, too
            if number == video or (
                number is None and row.ids[place] == row.ids[columns[0]] and _beside(place, columns)
            ):
                spans[video].append(at)
    one_axis = whole.positions.shape[0] == 1
    positions = torch.arange(len(order))[None] if one_axis else whole.positions[:, places]
    masses = torch.ones(len(order))
    for at, (_, number, output) in enumerate(order):
        if number is not None:
            masses[at] = mass_by_hand(videos[number].merge)[output]
    extra, kinds = (None if values is None else values[places] for values in (whole.extra, whole.kinds))
    return Prompt(embeds, positions, deep, extra, spans, kinds, masses)


def _beside(place: int, columns: list[int]) -> bool:
    return columns[0] - 1 <= place <= columns[-1] + 1


@torch.no_grad()
def continue_by_hand(
    eager: torch.nn.Module, prompt: Prompt, method: Method, steps: int, forced: list[int] | None = None
) -> tuple[list[int], Tensor]:
    """Greedy (or forced) tokens after a prompt and the logits (steps, V) before each; every step recomputes all."""
    produced: list[int] = []
    rows = []
    for step in range(steps):
        logits = _logits(eager, prompt, method, produced)
        rows.append(logits)
        produced.append(int(logits.argmax()) if forced is None else forced[step])
    return produced, torch.stack(rows)


def _logits(eager: torch.nn.Module, prompt: Prompt, method: Method, produced: list[int]) -> Tensor:
    decoder = eager.get_decoder()
    ids = torch.tensor([produced], dtype=torch.long)
    embeds, positions, count = prompt.embeds, prompt.positions, len(prompt.embeds)
    if produced:
        embeds = torch.cat([embeds, eager.get_input_embeddings()(ids)[0]])
        upcoming = positions.max() + 1 + torch.arange(len(produced))
        positions = torch.cat([positions, upcoming.expand(positions.shape[0], -1)], 1)
    deep = [torch.cat([values, values.new_zeros(len(produced), values.shape[1])]) for values in prompt.deep]
    stops = method.layers(len(decoder.layers))
    if not stops and not method.mass:
        kwargs = {}
        if deep:
            marked = torch.stack(deep).abs().sum((0, 2)) > 0
            kwargs = {"visual_pos_masks": marked[None], "deepstack_visual_embeds": [values[marked] for values in deep]}
        if prompt.extra is not None:
            extra = prompt.extra
            if produced:
                extra = torch.cat([extra, decoder.get_per_layer_inputs(ids, embeds[None, count:])[0]])
            kwargs = {"per_layer_inputs": extra[None]}
        if prompt.kinds is not None:
            kwargs = {"moe_mm_token_type_ids": torch.nn.functional.pad(prompt.kinds, (0, len(produced)))[None]}
        given = positions if positions.shape[0] == 1 else positions[:, None]
        out = decoder(inputs_embeds=embeds[None], position_ids=given, use_cache=False, **kwargs)
        return _head(eager, out.last_hidden_state[0, -1])
    hidden, live, weights = embeds[None], [list(span) for span in prompt.spans], None
    if (getattr(decoder.config, "rope_parameters", None) or {}).get("mrope_section"):
        positions = positions.expand(3, -1)  # a row of text alone comes with one axis
    given = positions if positions.shape[0] == 1 else positions[:, None]
    cos, sin = decoder.rotary_emb(hidden, given)
    decider = count - 1
    masses = torch.cat([prompt.masses, torch.ones(len(produced))]) if method.mass else torch.ones(len(embeds))
    for number, layer in enumerate(decoder.layers):
        if number in stops and any(live):
            state, gone = hidden[0].clone(), set()
            for span in live:
                merge = method.merge_span(
                    made_span(hidden[0, span], weights[span], layer=number, depth=len(decoder.layers))
                )
                kept = [span[source] for source in merge.anchor.tolist()]
                state[kept] = apply_by_hand(merge, hidden[0, span])
                masses[kept] = mass_by_hand(merge, masses[span])
                gone |= set(span) - set(kept)
            stay = [place for place in range(hidden.shape[1]) if place not in gone]
            hidden, masses = state[None, stay], masses[stay]
            masses = masses if method.mass else torch.ones_like(masses)
            cos, sin = cos[..., stay, :], sin[..., stay, :]
        length = hidden.shape[1]
        mask = torch.full((length, length), torch.finfo(hidden.dtype).min).triu(1)[None, None] + masses.log()
        seen: list[Tensor] = []
        handle = layer.self_attn.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out[1]))
        hidden = layer(
            hidden, attention_mask=mask, position_embeddings=(cos, sin), position_ids=None, past_key_values=None
        )
        handle.remove()
        hidden = hidden if isinstance(hidden, Tensor) else hidden[0]
        if number < len(deep):
            hidden = hidden + deep[number]
        if number + 1 in stops:
            weights = seen[0][0, :, decider].mean(0)
    return _head(eager, decoder.norm(hidden)[0, -1])


def _head(eager: torch.nn.Module, state: Tensor) -> Tensor:
    logits = eager.lm_head(state)
    text = eager.config.get_text_config()
    scaling = getattr(text, "logits_scaling", None) or getattr(text, "logit_scale", None) or 1
    logits = logits * scaling
    softcap = getattr(text, "final_logit_softcapping", None)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def by_hand(
    eager: torch.nn.Module,
    name: str,
    row: Row,
    videos: list[VideoRecord],
    method: Method,
    steps: int,
    **options: object,
) -> tuple[list[int], Tensor]:
    """Tokens and logits of one row, from the maps that a session applied to its videos before the LLM."""
    assert len(videos) == len(row.videos), FAMILIES_AND_DERIVED[name]
    return continue_by_hand(eager, shortened(whole_prompt(eager, name, row), row, videos), method, steps, **options)
