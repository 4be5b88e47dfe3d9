"""What compression did to the latest prompt, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holitom.cost import CostReport, Flops, ModelShape, vision_flops
from holitom.runtime.records import PromptRecord


@dataclass(frozen=True, eq=False)
class Summary:
    """The latest prompt of a session.

    Args:
        method: :meth:`Method.settings`, from which :func:`~holitom.methods.parse` makes the method.
        prompts: one record for each row.
        cost: FLOPs and KV-cache bytes of the language model, compressed and as it would have been;
            None where the family's cost is not known.
    """

    method: dict[str, Any]
    prompts: list[PromptRecord]
    cost: CostReport | None

    @property
    def name(self) -> str:
        """The method's name; of a chain, those of its parts."""
        parts = [self.method] if "method" in self.method else self.method.values()
        return "|".join(part["method"] for part in parts)

    @property
    def visual_tokens(self) -> list[int]:
        """Visual tokens of all rows: in the full prompt, entering the LLM, leaving its last layer."""
        rows = [(prompt.visual, prompt.visual_by_layer[0], prompt.visual_by_layer[-1]) for prompt in self.prompts]
        return [sum(column) for column in zip(*rows, strict=True)]

    @property
    def segments(self) -> int | None:
        """Segments that the method found, in all videos; None for methods that look for none."""
        spans = [video.merge.spans for prompt in self.prompts for video in prompt.videos]
        return sum(len(found) for found in spans if found) if any(spans) else None

    @property
    def mean_visual_tokens(self) -> float:
        """Visual tokens that a decoder layer processed on average, all rows together."""
        rows = [prompt.visual_by_layer for prompt in self.prompts]
        return sum(map(sum, rows)) / len(rows[0])

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        full, entering, leaving = self.visual_tokens
        return {
            "method": self.method,
            "visual_tokens": {"full": full, "entering": entering, "leaving": leaving, "mean": self.mean_visual_tokens},
            "segments": self.segments,
            "videos": [
                {
                    "row": video.row,
                    "frames": video.frames,
                    "grid": list(video.grid),
                    "segments": None if video.merge.spans is None else [list(span) for span in video.merge.spans],
                    "tokens_by_stage": video.tokens_by_stage,
                    "inner_layers": [stage.layer for stage in video.inner],
                    "tower_rows": video.tower.rows if video.tower is not None else [],
                    "tower_share": video.tower.share if video.tower is not None else 1.0,
                }
                for prompt in self.prompts
                for video in prompt.videos
            ],
            "cost": self.cost and self.cost.as_dict(),
        }

    def __str__(self) -> str:
        full, entering, leaving = self.visual_tokens
        tokens = f"{self.name}: {full} visual tokens, {entering} enter the LLM, {leaving} leave it; "
        if self.cost is None:
            return tokens + "the FLOPs and bytes of this family are not known"
        ratios = self.cost.ratios
        tower = ratios["vision_flops"]
        inside = f"vision tower FLOPs {tower:.1%}, " if tower is not None and tower < 1 else ""
        return (
            f"{tokens}{inside}prefill FLOPs {ratios['prefill_flops']:.1%} (causal; by the paper's formula "
            f"{ratios['paper_flops']:.1%}), KV cache {ratios['kv_cache_bytes']:.1%} of the full prompt's"
        )


def tower_flops(shape: ModelShape, prompts: list[PromptRecord]) -> tuple[Flops | None, Flops | None]:
    """The FLOPs of the vision tower as it ran, and untouched; None where they are not known."""
    videos = [video.tower for prompt in prompts for video in prompt.videos]
    records = {id(record): record for record in videos if record is not None}  # rows of beams share a video
    if shape.vision is None or None in videos or not records:
        return None, None
    ran = full = Flops()
    for record in records.values():
        frames = record.frames * shape.vision.frames_per_step
        full += vision_flops(shape, frames, record.grid)
        rows, pairs = record.rows or None, record.pairs or None
        ran += vision_flops(shape, frames, record.grid, rows=rows, pairs=pairs, projected=record.projected)
    return ran, full
