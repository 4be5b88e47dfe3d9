"""What compression buys: FLOPs, KV-cache and activation bytes from a model's config, and timers."""

from .flops import Flops, decode_flops, prefill_flops
from .matching import Matched, matched_to, visual_schedule
from .memory import activation_peak_bytes, kv_cache_bytes
from .paper import paper_flops, paper_layer_flops, paper_schedule
from .shape import AttentionShape, DeltaNetShape, ExpertsShape, LayerShape, ModelShape, ShortConvShape, VisionShape
from .summary import Cost, CostReport
from .timing import Ratio, Sample, StageTimer, interleave, ratios, synchronize
from .vision import vision_flops

__all__ = [
    "AttentionShape", "Cost", "CostReport", "DeltaNetShape", "ExpertsShape", "Flops", "LayerShape", "Matched",
    "ModelShape", "Ratio", "Sample", "ShortConvShape", "StageTimer", "VisionShape", "activation_peak_bytes",
    "decode_flops", "interleave", "kv_cache_bytes", "matched_to", "paper_flops", "paper_layer_flops", "paper_schedule",
    "prefill_flops", "ratios", "synchronize", "vision_flops", "visual_schedule",
]  # fmt: skip
