"""Compressed generation computed a second way: one sample, no cache, no hooks, eager attention, from scratch."""

from __future__ import annotations

import torch
from golden import span as made_span
from torch import Tensor

from holitom import HoliTom, VideoTokens


def apply_by_hand(merge: object, x: Tensor) -> Tensor:
    """(S, D) -> (M, D) from the definition of a Merge."""
    out = torch.zeros(len(merge.anchor), x.shape[1], dtype=torch.float64)
    edges = list(zip(range(len(merge.target)), merge.target.tolist(), merge.weight.tolist(), strict=True))
    if merge.shares is not None:
        more = merge.shares
        edges += zip(more.source.tolist(), more.output.tolist(), more.weight.tolist(), strict=True)
    for source, target, weight in edges:
        if target >= 0:
            out[target] += weight * x[source].double()
    return out.to(x.dtype)


def mass_by_hand(merge: object, of: Tensor | None = None) -> Tensor:
    """(M,) how many sources each output stands for, from the definition."""
    fed: dict[int, list[int]] = {}
    for source, output, _ in zip(*(part.tolist() for part in merge.edges()), strict=True):
        fed.setdefault(source, []).append(output)
    out = torch.zeros(len(merge.anchor))
    for source, outputs in fed.items():
        for output in outputs:
            out[output] += (1.0 if of is None else float(of[source])) / len(outputs)
    return out


def patch_scores(eager: object, clip: Tensor) -> Tensor:
    """(T, N): the last vision layer's attention, averaged over heads and queries, pooled to half its size."""
    tower = eager.model.vision_tower
    states = tower.embeddings(clip)
    for layer in tower.encoder.layers[:-1]:
        states = layer(states, attention_mask=None)
    last = tower.encoder.layers[-1]
    weights = last.self_attn(last.layer_norm1(states), attention_mask=None)[1]
    received = weights.mean(1).mean(1)
    side = int(received.shape[1] ** 0.5)
    half = -(-side // 2)
    received = received.view(-1, 1, side, side)
    return torch.nn.functional.interpolate(received, size=(half, half), mode="bilinear").flatten(1)


def shortened(eager: object, ids: list[int], clips: list[Tensor], images: Tensor | None, method: HoliTom) -> tuple:
    """The embeddings (L, D) of a prompt after the outer stage, the columns of each video's span in it, and the place of
    each of the L tokens in the full prompt."""
    config = eager.config
    text = eager.get_input_embeddings()(torch.tensor(ids))
    side = -(-(config.vision_config.image_size // config.vision_config.patch_size) // 2)
    pieces, spans, places, column, video, picture = [], [], [], 0, 0, 0
    while column < len(ids):
        if ids[column] == config.video_token_id:
            clip = clips[video]
            features = eager.model.get_video_features(clip[None]).pooler_output[0]
            patches, newline = features[: len(clip) * side * side], eager.model.image_newline[None]
            tokens = VideoTokens(patches.view(len(clip), side * side, -1), (side, side), patch_scores(eager, clip))
            merge = method.merge_video(tokens)
            piece = torch.cat([apply_by_hand(merge, patches), newline])
            start = sum(len(part) for part in pieces)
            spans.append(list(range(start, start + len(piece))))
            places += [column + anchor for anchor in [*merge.anchor.tolist(), len(patches)]]
            column, video = column + len(patches) + 1, video + 1
        elif ids[column] == config.image_token_id:
            places.append(column)
            piece, column, picture = images[picture : picture + 1], column + 1, picture + 1
        else:
            places.append(column)
            piece, column = text[column : column + 1], column + 1
        pieces.append(piece)
    return torch.cat(pieces), spans, places


@torch.no_grad()
def generate_by_hand(
    eager: object,
    ids: list[int],
    clips: list[Tensor],
    method: HoliTom,
    steps: int,
    images: Tensor | None = None,
) -> list[int]:
    """Greedy tokens after a prompt; every step recomputes everything."""
    prompt, spans, places = shortened(eager, ids, clips, images, method)
    decoder, produced = eager.get_decoder(), []
    stops = method.layers(len(decoder.layers))
    for _ in range(steps):
        hidden = prompt
        if produced:
            hidden = torch.cat([prompt, eager.get_input_embeddings()(torch.tensor(produced))])
        hidden, live = hidden[None], [list(span) for span in spans]
        positions = torch.arange(hidden.shape[1])
        if method.positions == "original":
            positions = torch.tensor([*places, *range(len(ids), len(ids) + len(produced))])
        cos, sin = decoder.rotary_emb(hidden, positions[None])
        decider, weights = len(prompt) - 1, None
        for number, layer in enumerate(decoder.layers):
            if number in stops:
                row, gone = hidden[0].clone(), set()
                for span in live:
                    merge = method.merge_span(
                        made_span(hidden[0, span], weights[span], layer=number, depth=len(decoder.layers))
                    )
                    merged = apply_by_hand(merge, hidden[0, span])
                    kept = [span[source] for source in merge.anchor.tolist()]
                    row[kept] = merged
                    gone |= set(span) - set(kept)
                stay = [place for place in range(hidden.shape[1]) if place not in gone]
                hidden, cos, sin = row[None, stay], cos[:, stay], sin[:, stay]
            length = hidden.shape[1]
            mask = torch.full((length, length), torch.finfo(hidden.dtype).min).triu(1)[None, None]
            normed = layer.input_layernorm(hidden)
            mixed, attention = layer.self_attn(
                hidden_states=normed, position_embeddings=(cos, sin), attention_mask=mask, past_key_values=None
            )
            hidden = hidden + mixed
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
            if number + 1 in stops:
                weights = attention[0, :, decider].mean(0)
        logits = eager.lm_head(decoder.norm(hidden)[0, -1])
        produced.append(int(logits.argmax()))
    return produced
