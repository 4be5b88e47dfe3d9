"""In front of the decoder: videos are found and merged, what they no longer need goes, every token gets its place."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from holitom.merge import Merge
from holitom.models.base import VideoLayout
from holitom.models.transformers_names import cache_argument, cache_in
from holitom.runtime.cache import CacheMemory, Stage, Unfinished, memory_of, remember
from holitom.runtime.call import Call, VideoSpan
from holitom.runtime.layers import known_tokens, reads_packed
from holitom.runtime.lengths import cached_length, require_tokens
from holitom.runtime.locate import Located, locate, padding_of
from holitom.runtime.mass import with_masses
from holitom.runtime.question import asked, embedded
from holitom.runtime.records import PromptRecord, VideoRecord
from holitom.runtime.sequence import BatchMerge, Span, row_merge

_log = logging.getLogger(__name__)


def enter_decoder(call: Call, decoder: Any, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """What the decoder is called with instead of ``kwargs``; None leaves the call as it is.

    Raises:
        ValueError: for a call that cannot be compressed, or cannot go on from its compressed KV cache.
    """
    embeds: Tensor | None = kwargs.get("inputs_embeds")
    if embeds is None:
        return None  # somebody calls the language model alone, with ids: nothing visual in it
    session = call.session
    call.decoder, call.depth = decoder, len(session.adapter.layers)
    call.rows, call.width = embeds.shape[:2]
    call.came = call.width
    call.cache = _cache(decoder, kwargs)
    call.memory = memory_of(call.cache)
    if call.memory is not None:
        call.memory.check(session.method, session.layers, call.rows)
    elif call.width == 1:
        return None
    if call.width == 1 or call.ids is None or call.ids.shape != (call.rows, call.width):
        return None if call.memory is None else _go_on(call, kwargs)
    valid = _real_tokens(call, kwargs)
    rows, tail = _find(call, torch.ones(call.ids.shape, dtype=torch.bool, device="cpu") if valid is None else valid)
    if not any(rows):
        return None if call.memory is None else _go_on(call, kwargs, valid)
    if valid is None:
        raise _own_mask(call, kwargs)
    with session.stage("compression"):
        changed = _compress(call, kwargs, valid, rows, tail)
    if call.labelled and (session.layers or (changed and changed["inputs_embeds"].shape != embeds.shape)):
        raise ValueError(
            "labels= have one entry for each token of the full prompt, of which compression leaves fewer: take the "
            "logits and compute the loss of the answer's tokens from them (see docs/training.md), or leave the session "
            "for this call"
        )
    return changed


def _cache(decoder: Any, kwargs: dict[str, Any]) -> Any:
    """The call's KV cache; made here where the decoder would make one, so that it can remember."""
    cache, use = cache_in(kwargs), kwargs.get("use_cache")
    replayed = getattr(decoder, "gradient_checkpointing", False) and decoder.training and torch.is_grad_enabled()
    if cache is None and not replayed and (getattr(decoder.config, "use_cache", True) if use is None else use):
        from transformers import DynamicCache

        cache = kwargs[cache_argument(decoder.forward)] = DynamicCache(config=decoder.config)
    return cache


def _real_tokens(call: Call, kwargs: dict[str, Any]) -> Tensor | None:
    """(B, Q) bool on the CPU: which tokens of this call are no padding; None for a mask that does not say it."""
    mask, width = _mask(call, kwargs), call.width
    if mask is None:
        return torch.ones(call.rows, width, dtype=torch.bool, device="cpu")
    if not isinstance(mask, Tensor):
        return None
    if mask.dim() == 2 and mask.shape[1] >= width:
        on_host = call.mask_on_host if mask is call.mask else None
        return mask[:, -width:].bool().cpu() if on_host is None else on_host[:, -width:]
    if not _made_by_generate(call, mask):
        return None
    row = mask[:, 0, -1]  # the last token's row shows what is padding
    real = (row if row.dtype == torch.bool else row == 0).cpu()
    if bool(real[:, width:].any()):
        raise ValueError(
            "a static cache that already holds tokens cannot take a further compressed prompt: use the default "
            "(dynamic) cache for several turns"
        )
    return real[:, :width].expand(call.rows, -1)


def _made_by_generate(call: Call, mask: Tensor) -> bool:
    """Whether a 4-D mask is the causal one that generate() makes for a static cache, and not the user's own."""
    if mask.dim() != 4 or call.generation is None or not getattr(call.cache, "is_compileable", False):
        return False
    given = call.generation.mask
    return given is None or given.dim() == 2


def _own_mask(call: Call, kwargs: dict[str, Any]) -> ValueError:
    """The error for a mask that says more than what is padding."""
    mask = _mask(call, kwargs)
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    return ValueError(
        f"a video cannot be compressed under an attention mask of its own ({shape}), which says more than what is "
        "padding: give a 2-D mask (1: a token, 0: padding), or leave the session for this call"
    )


def _mask(call: Call, kwargs: dict[str, Any]) -> Any:
    """The flattest mask that is known of this call: the model's, else the decoder's, else what generate() got."""
    mask = kwargs.get("attention_mask") if call.mask is None else call.mask
    if not isinstance(mask, dict):
        return mask
    if not getattr(call.cache, "is_compileable", False) and cached_length(call.cache, 0):
        return None if call.generation is None else call.generation.mask  # masks for a cache that grows say too little
    return mask.get("full_attention")


def _find(call: Call, valid: Tensor) -> tuple[list[list[Located]], list[int]]:
    """The videos of this call's rows, and for each row the columns after the token whose attention decides."""
    ids, beyond = call.ids_on_host, min(call.width, _beyond_prompt(call))
    assert ids is not None
    asked = valid.clone() if beyond else valid
    if beyond:
        asked[:, -beyond:] = False  # prompt lookup proposes placeholders that stand for nothing
    marked, layouts = call.session.adapter.arrange(ids, asked, call.layouts or [])
    if call.layouts is None and bool(marked.any()):
        raise ValueError(
            f"the prompt has {int(marked.sum())} video placeholder tokens, but the videos encoded for it are not "
            "known: give the pixels, or encode them (get_video_features) inside this session"
        )
    rows = locate(marked, layouts, in_chunks=call.generation is not None and call.generation.in_chunks)
    return rows, [max(beyond, after) for after in padding_of(valid)[1]]


def _beyond_prompt(call: Call) -> int:
    """How many of this call's columns generate() has put behind its prompt."""
    if call.generation is None or call.generation.ids is None:
        return 0
    prompt = call.generation.ids.shape[1]
    if call.width >= prompt:
        return call.width - prompt
    return max(0, call.width + int(call.cache.get_seq_length()) - prompt) if call.cache is not None else 0


def _compress(
    call: Call, kwargs: dict[str, Any], valid: Tensor, rows: list[list[Located]], tail: list[int]
) -> dict[str, Any] | None:
    session, embeds, device, width = call.session, kwargs["inputs_embeds"], kwargs["inputs_embeds"].device, call.width
    padding, call.right = padding_of(valid)
    maps, prompts, spans, given = [], [], [], None
    known: dict[tuple[VideoLayout, tuple[int, ...]], Merge] = {}  # rows repeated for beams share their videos
    for row, videos in enumerate(rows):
        prompt = PromptRecord(row, width - padding[row] - call.right[row], [0] * call.depth)
        parts, question = [], asked(call, row) if videos else ()
        for video in videos:
            layout = video.layout
            columns, blocks, first = video.patches(device)
            index = columns if first is None else slice(first, first + len(columns))
            merge = known.get((layout, question))
            if merge is None:
                merge = known[layout, question] = _merge(call, embeds[row, index], layout, question)
            parts.append(Span(columns, blocks, merge, first))
            whole = merge if layout.merged is None else layout.merged
            given = with_masses(given, embeds, row, index, layout.merged) if session.method.mass else None
            prompt.tokens += whole.inputs - merge.inputs
            shape = row, layout.frames, layout.grid, whole, len(layout.place) - merge.inputs
            prompt.videos.append(VideoRecord(*shape, scores=layout.scores, tower=layout.tower))
        merge, places, text = row_merge(width, padding[row], parts, device)
        prompt.by_layer[:] = [merge.outputs - call.right[row]] * call.depth
        maps.append(merge)
        prompts.append(prompt)
        found = zip(videos, prompt.videos, parts, places, strict=True)
        spans.append([_span(*each, text) for each in found] if session.layers else [])
    session.prompts = call.prompts = prompts
    untouched = call.memory is None and all(
        merge.outputs == merge.inputs and bool((merge.anchor.diff() > 0).all()) for merge in known.values()
    )
    if untouched and not session.layers and not call.reads_prefix and given is None:
        return None
    batch = BatchMerge([Merge.identity(width, device) for _ in maps], width) if untouched else BatchMerge.of(maps)
    call.padding = padding if untouched else [batch.length - merge.outputs for merge in maps]
    if any(call.padding):
        require_tokens(call.cache, [batch.length - before for before in call.padding], type(session.model).__name__)
    for row, live in enumerate(spans):
        for span in live:
            span.columns = span.columns + (padding[row] if untouched else batch.length - maps[row].outputs)
    call.spans, call.tail, call.memory = spans, tail, call.memory or _begin(call, kwargs)
    call.dropping, call.mass = width - batch.length, batch.mass(given) if session.method.mass else None
    call.tail_tokens = width - 1 - max(int(video.columns[-1]) for videos in rows for video in videos)
    _note_following(call, kwargs, maps)
    if call.reads_prefix:
        call.memory.unfinished = Unfinished(prompts=prompts)
    if (
        any(call.padding)
        or not all(  # else every token that is left is real
            bool(row[before : width - after].all()) and not after
            for row, before, after in zip(valid, padding, call.right, strict=True)
        )
    ):
        call.new = batch.gather(valid.to(device))
    call.width, call.positions = batch.length, batch.gather_planes(_given_positions(kwargs, width), 2)
    if call.cache is not None:
        remember(call.cache, call.memory)
    call.observe_layers()
    if untouched:
        call.enter(0)
        return None
    moved = session.adapter.move_arguments(kwargs, batch.apply, batch.gather, width)
    return _masks_and_positions(call, {**moved, "inputs_embeds": batch.apply(embeds)})


@torch.no_grad()
def _merge(call: Call, features: Tensor, layout: VideoLayout, question: tuple[int, ...]) -> Merge:
    """The method's Merge for one video's features (T*N, D); what was merged before the call stays as it is."""
    if layout.merged is not None:
        return Merge.identity(len(features), features.device)
    text = embedded(call.session, question, features.device)
    return call.session.method.merge_video(layout.tokens(features.detach(), text))


def _span(video: Located, record: VideoRecord, part: Span, places: Tensor, text: Tensor) -> VideoSpan:
    """The video's tokens as they now stand in the unpadded row: merged patches and newlines."""
    newline = text[video.columns[video.layout.place < 0].to(text.device, non_blocking=True)]
    merged, anchor = video.layout.merged, part.merge.anchor
    anchor = anchor if merged is None else merged.anchor.to(anchor.device)[anchor]
    columns, order = torch.cat([places, newline]).sort()
    place = pad(anchor, (0, len(newline)), value=-1)[order.to(anchor.device, non_blocking=True)]
    return VideoSpan(record, columns, place, entered=columns.numel())


def _begin(call: Call, kwargs: dict[str, Any]) -> CacheMemory:
    """The memory of a cache in front of its first compressed prompt: it may hold turns of text already."""
    past, mask, width = cached_length(call.cache, 0), _mask(call, kwargs), call.width
    known = None
    if past and isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[1] >= past + width:
        known = mask[:, -past - width : -width].to(kwargs["inputs_embeds"].device).bool()
    stages = [Stage(layer, past, known) for layer in (0, *call.session.layers)]
    return CacheMemory(call.session.method, call.session.positions, stages, call.rows)


def _given_positions(kwargs: dict[str, Any], width: int) -> Tensor:
    """The position ids that came: (B or 1, Q) or (3 or 4, B or 1, Q)."""
    given: Tensor | None = kwargs.get("position_ids")
    return torch.arange(width, device=kwargs["inputs_embeds"].device)[None] if given is None else given


def _note_following(call: Call, kwargs: dict[str, Any], maps: list[Merge]) -> None:
    """Notes which position follows each row, relative to its number of tokens.

    Only the model knows where text goes on after a video, so the last token must be text: its axes agree.
    """
    memory, given = call.memory, kwargs.get("position_ids")
    assert memory is not None
    flat = given is None or given.dim() == 2
    memory.offset, memory.planes = None, None if flat else 3
    if flat and memory.positions == "compact":
        return
    given = _given_positions(kwargs, kwargs["inputs_embeds"].shape[1])
    axes = (given[None] if given.dim() == 2 else given[-3:]).expand(-1, call.rows, -1)
    ends = torch.stack([axes[:, row, -1 - after] for row, after in enumerate(call.right)], dim=1).tolist()
    if any(len(set(axis)) > 1 for axis in zip(*ends, strict=True)):
        if call.reads_prefix:
            raise ValueError("the start of a prompt must end with a token of text behind its last video")
        return
    most, farthest = getattr(call.decoder.config, "max_position_embeddings", None), max(ends[0])
    if given.dim() == 2 and most and farthest >= most and not call.session.warned:
        call.session.warned = True
        _log.warning("kept places reach position %d of a model made for %d: try positions='compact'", farthest, most)
    past = cached_length(call.cache, 0)
    before = memory.stages[0].first(past)
    held = [past] * call.rows if before is None else before.sum(1).tolist()
    counts = [merge.outputs - after + real for merge, after, real in zip(maps, call.right, held, strict=True)]
    offsets = [place + 1 - count for place, count in zip(ends[0], counts, strict=True)]
    memory.offset = torch.tensor(offsets, dtype=axes.dtype, device="cpu")[:, None].to(axes.device, non_blocking=True)


def _go_on(call: Call, kwargs: dict[str, Any], valid: Tensor | None = None) -> dict[str, Any]:
    """A call without new videos on a cache that holds compressed ones: decoding, or a further turn of text."""
    memory, embeds = call.memory, kwargs["inputs_embeds"]
    assert memory is not None
    if valid is None:
        mask = _mask(call, kwargs)
        if isinstance(mask, Tensor) and mask.dim() != 2 and not _made_by_generate(call, mask):
            raise _own_mask(call, kwargs)
        if call.width > 1 and _beyond_prompt(call) < call.width:
            valid = _real_tokens(call, kwargs)
    if valid is not None and not bool(valid.all()):
        call.new = valid.to(embeds.device)
    if memory.unfinished is not None:
        call.resume(memory.unfinished)
        call.observe_layers()
        memory.unfinished = None
    return _masks_and_positions(call, kwargs)


def _masks_and_positions(call: Call, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the first stage's mask, and the places of what is left or of what follows it."""
    stage, memory, embeds = call.enter(0), call.memory, kwargs["inputs_embeds"]
    assert memory is not None
    count, given, mask = call.places(stage, embeds.device), call.positions, known_tokens(call, stage, embeds.device)
    if given is None:
        given = memory.following(count, kwargs.get("position_ids"))
    call.positions = memory.numbered(count, given)
    if call.positions is given and given.dim() == 2:
        # without a mask, gaps in position ids would read as borders of packed sequences: by the function that makes
        # masks, and by flash attention itself, whose layers are shown contiguous ids
        if mask is None:
            mask = torch.ones(call.rows, stage.length, dtype=torch.bool, device=embeds.device)
        if reads_packed(call.decoder):
            call.replaced = {"position_ids": count}
    return {**kwargs, "attention_mask": mask, "position_ids": call.positions}
