"""The numbers of a model that its cost depends on: widths, heads, layers, experts, vision tower."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal


def check_int(name: str, value: object, least: int = 1) -> None:
    """Raises, with the name, unless a value is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_positive(shape: object, *names: str) -> None:
    for name in names:
        check_int(f"{type(shape).__name__}.{name}", getattr(shape, name))


@dataclass(frozen=True)
class AttentionShape:
    """Softmax attention with grouped queries.

    Attributes:
        heads: number of query heads.
        kv_heads: number of key and value heads, a divisor of ``heads``.
        head_dim: width of one head.
        window: keys that a query may see, itself included (sliding attention); None for all.
        output_gate: the query projection also makes a gate as wide as the queries (Qwen3.5).
        own_keys: False where keys and values come from an earlier layer (Gemma 4): no projection, no cache.
        own_values: False where the projected keys serve as values too (Gemma 4): one projection less.
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    output_gate: bool = False
    own_keys: bool = True
    own_values: bool = True

    def __post_init__(self) -> None:
        _check_positive(self, "heads", "kv_heads", "head_dim")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads, got {self.kv_heads} and {self.heads}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 or None, got {self.window}")


@dataclass(frozen=True)
class DeltaNetShape:
    """Gated delta rule, the linear attention of Qwen3.5: a state of fixed size instead of a growing cache.

    Attributes:
        key_heads: number of query and key heads.
        value_heads: number of value heads, each with its own state.
        key_dim: width of one query or key head.
        value_dim: width of one value head.
        kernel: taps of the causal convolution over queries, keys and values.
        chunk: tokens that the prefill handles at a time.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int = 4
    chunk: int = 64

    def __post_init__(self) -> None:
        _check_positive(self, *(field.name for field in fields(self)))

    @property
    def channels(self) -> int:
        """Width of queries, keys and values together."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True)
class ShortConvShape:
    """A gated convolution over the last few tokens (LFM3): a state of fixed size instead of a growing cache.

    Attributes:
        channels: width, that of the residual stream.
        kernel: tokens that it sees, the new one included.
    """

    channels: int
    kernel: int

    def __post_init__(self) -> None:
        _check_positive(self, "channels", "kernel")


@dataclass(frozen=True)
class ExpertsShape:
    """A mixture of gated experts.

    Attributes:
        count: number of experts, which is the width of the router.
        per_token: experts that each token visits.
        intermediate: MLP width of one expert.
        shared_intermediate: width of an expert that every token visits; 0 for none.
        shared_gate: whether that one has a gate of width 1.
    """

    count: int
    per_token: int
    intermediate: int
    shared_intermediate: int = 0
    shared_gate: bool = True

    def __post_init__(self) -> None:
        _check_positive(self, "count", "per_token", "intermediate")
        if self.per_token > self.count:
            raise ValueError(f"per_token must be at most count = {self.count}, got {self.per_token}")
        if self.shared_intermediate < 0:
            raise ValueError(f"shared_intermediate must be at least 0, got {self.shared_intermediate}")


@dataclass(frozen=True)
class LayerShape:
    """One decoder layer.

    Attributes:
        attention: how tokens are mixed.
        intermediate: width of the dense MLP, 0 where there are only experts.
        gated: the MLP has a gate (three matrices) or not (two).
        experts: the mixture of experts, None for none.
        extra_weights: weights of further linear maps that every token of the layer passes.
    """

    attention: AttentionShape | DeltaNetShape | ShortConvShape
    intermediate: int
    gated: bool = True
    experts: ExpertsShape | None = None
    extra_weights: int = 0

    def __post_init__(self) -> None:
        if self.intermediate < 0 or self.extra_weights < 0:
            raise ValueError(
                f"intermediate and extra_weights must be at least 0, got {self.intermediate} and {self.extra_weights}"
            )
        if self.intermediate == 0 and self.experts is None:
            raise ValueError("a layer needs an MLP: give intermediate above 0 or experts")

    @property
    def active_intermediate(self) -> int:
        """MLP width that one token passes: dense plus the experts that it visits (m of the paper's formula)."""
        if self.experts is None:
            return self.intermediate
        experts = self.experts
        return self.intermediate + experts.per_token * experts.intermediate + experts.shared_intermediate


@dataclass(frozen=True)
class VisionShape:
    """A vision tower and the projector behind it.

    Attributes:
        layers: number of tower layers; all of them run, also where the features are taken before the last.
        hidden: width of the tower.
        heads: attention heads.
        head_dim: width of one head.
        intermediate: MLP width of the tower.
        patch_inputs: values that make one patch embedding (channels x frames x height x width of the patch).
        projector: linear maps behind the tower as (inputs, outputs), each applied to every projected position.
        gated: the tower's MLP has a gate.
        grid: patches (rows, columns) of a frame where the resolution is fixed, else None.
        frames_per_step: frames that one step of the tower takes together (temporal patch).
        class_tokens: positions beside the patches (the CLS token).
        merge: side of the square of patches that becomes one position before the projector.
        projector_input: what the projector sees: squares ("merged"), "patches", or "all" with the class tokens.
        deepstack: how many further projectors of the same shape tap inner layers (Qwen3-VL).
        window: side of an attention window in patches, None for attention over the whole frame.
        full_layers: layers that attend to the whole frame in spite of ``window``.
        pooling_head: the tower ends in SigLIP's attention pooling, whose result the model does not use.
        kv_heads: key and value heads, where there are fewer than ``heads``.
        conv_layers: how many of the layers are gated convolutions over the patch grid in place of attention (LFM3-VL).
        conv_kernel: side of their kernel in patches.
        pooling_matmul: the merge is a product with a one-hot matrix (Gemma 4), which costs FLOPs.
    """

    layers: int
    hidden: int
    heads: int
    head_dim: int
    intermediate: int
    patch_inputs: int
    projector: tuple[tuple[int, int], ...]
    gated: bool = False
    grid: tuple[int, int] | None = None
    frames_per_step: int = 1
    class_tokens: int = 0
    merge: int = 1
    projector_input: Literal["merged", "patches", "all"] = "merged"
    deepstack: int = 0
    window: int | None = None
    full_layers: tuple[int, ...] = ()
    pooling_head: bool = False
    pooling_matmul: bool = False
    kv_heads: int | None = None
    conv_layers: int = 0
    conv_kernel: int = 0

    def __post_init__(self) -> None:
        _check_positive(self, "layers", "hidden", "heads", "head_dim", "intermediate", "patch_inputs")
        _check_positive(self, "frames_per_step", "merge")
        if self.projector_input not in ("merged", "patches", "all"):
            raise ValueError(f"projector_input must be 'merged', 'patches' or 'all', got {self.projector_input!r}")
        if self.window is not None and (self.window < self.merge or self.window % self.merge):
            raise ValueError(f"window must be a multiple of merge = {self.merge}, got {self.window}")


@dataclass(frozen=True)
class ModelShape:
    """Everything about a model that its cost depends on.

    Attributes:
        family: the model type of the config, "llava_onevision" for example.
        hidden: d, the width of the residual stream.
        vocab: rows of the output head.
        layers: the decoder layers, in order.
        vision: tower and projector; None where only the language model counts.
        input_weights: weights of linear maps that every prompt token passes before the first layer.
    """

    family: str
    hidden: int
    vocab: int
    layers: tuple[LayerShape, ...]
    vision: VisionShape | None = None
    input_weights: int = 0

    def __post_init__(self) -> None:
        _check_positive(self, "hidden", "vocab")
        if not self.layers:
            raise ValueError("ModelShape.layers is empty: a model has at least one decoder layer")

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @classmethod
    def from_config(cls, config: Any) -> ModelShape:
        """Read the shape from a transformers config; nothing is built or loaded.

        Args:
            config: the config of a video language model, such as ``model.config``.

        Raises:
            ValueError: naming the config's class where its cost is not known here.
        """
        from .families import model_shape  # families builds these very classes

        return model_shape(config)

    @classmethod
    def known(cls, config: Any) -> ModelShape | None:
        """:meth:`from_config`, or None for a model whose cost is not known."""
        try:
            return cls.from_config(config)
        except ValueError:
            return None
