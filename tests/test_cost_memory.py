"""KV-cache bytes are exact; the activation peak is close to the bytes of all tensors alive at once."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from cost_models import FAMILIES, build, config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import DynamicCache

from holitom.cost import ModelShape, activation_peak_bytes, kv_cache_bytes
from holitom.models.transformers_names import cache_argument


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operators make, from birth to collection, and their peak."""

    def __init__(self, existing: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in existing}
        self.live = self.peak = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.sizes:
                storage = tensor.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata)
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, key: int) -> None:
        self.live -= self.sizes.pop(key)


def cache_bytes(cache: DynamicCache) -> int:
    total = 0
    for layer in cache.layers:
        tensors = [getattr(layer, "keys", None), getattr(layer, "values", None)]
        for states in ("conv_states", "recurrent_states"):
            tensors += getattr(layer, states, {}).values()
        total += sum(tensor.nbytes for tensor in tensors if tensor is not None)
    return total


@pytest.mark.parametrize("tokens", [1, 9, 70])
@pytest.mark.parametrize("name", FAMILIES)
def test_kv_cache_bytes_equal_a_real_cache(name, tokens):
    model = build(name)
    shape = ModelShape.from_config(model.config)
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        model.get_decoder()(
            input_ids=torch.arange(tokens)[None], **{cache_argument(model.get_decoder().forward): cache}
        )
    assert kv_cache_bytes(shape, [tokens] * shape.depth, torch.float32) == cache_bytes(cache)


def test_kv_cache_bytes_of_unequal_layers_and_of_other_types():
    shape = ModelShape.from_config(config("llava_onevision"))  # 2 key heads of 6
    assert kv_cache_bytes(shape, [10, 10, 4], torch.bfloat16) == 2 * 2 * 6 * 2 * 24
    assert kv_cache_bytes(shape, [10, 10, 4]) == kv_cache_bytes(shape, [10, 10, 4], torch.float16)
    assert kv_cache_bytes(shape, [10, 10, 4], 1) * 2 == kv_cache_bytes(shape, [10, 10, 4], 2)


@pytest.mark.parametrize("wide", [(64, 320), (128, 128)])  # the MLP makes the peak, or attention does
@pytest.mark.parametrize(
    ("attention", "dtype", "tolerance"),
    [("sdpa", torch.float32, 0.02), ("sdpa", torch.bfloat16, 0.02), ("eager", torch.float32, 0.10)],
)
@pytest.mark.parametrize("name", ["llava_onevision", "qwen3_vl", "internvl", "qwen3_vl_moe"])
def test_activation_peak_is_close_to_the_tensors_alive(name, attention, dtype, tolerance, wide):
    sizes = {"hidden_size": wide[0], "intermediate_size": wide[1], "num_attention_heads": 4}
    model = build(name, attention, **sizes).to(dtype)
    shape = ModelShape.from_config(model.config)
    embeddings = torch.randn(1, 200, wide[0], dtype=dtype)
    with torch.no_grad(), LiveBytes([*model.parameters(), *model.buffers(), embeddings]) as alive:
        model.get_decoder()(inputs_embeds=embeddings, use_cache=False)
    modelled = activation_peak_bytes(shape, [200] * shape.depth, dtype, attention=attention)
    assert modelled == pytest.approx(alive.peak + embeddings.nbytes, rel=tolerance)


def test_activation_peak_falls_with_the_tokens():
    shape = ModelShape.from_config(config("llava_onevision"))
    full = activation_peak_bytes(shape, [1000] * 3)
    assert activation_peak_bytes(shape, [100] * 3) * 10 == pytest.approx(full, rel=0.01)
    assert activation_peak_bytes(shape, [1000, 1000, 500]) == full
    wide_head = ModelShape.from_config(config("llava_onevision", vocab_size=1001))
    assert activation_peak_bytes(wide_head, [1] * 3) > activation_peak_bytes(shape, [1] * 3)
    assert activation_peak_bytes(shape, [1000] * 3, attention="eager") > 8 * 4 * 1000**2


SHAPE = ModelShape.from_config(config("llava_onevision"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kv_cache_bytes(SHAPE, [3]), ValueError, "tokens_per_layer needs one count for each of the 3"),
        (lambda: kv_cache_bytes(SHAPE, [3] * 3, "bf16"), TypeError, "dtype must be a torch.dtype or the bytes"),
        (lambda: kv_cache_bytes(SHAPE, [3] * 3, 0), ValueError, "dtype given in bytes must be at least 1, got 0"),
        (lambda: activation_peak_bytes(SHAPE, [3] * 3, attention="flash"), ValueError, "attention must be 'sdpa'"),
        (
            lambda: activation_peak_bytes(ModelShape.from_config(config("qwen3_5")), [3] * 4),
            ValueError,
            "linear attention and of convolutions depends on the kernel and is not known: measure it",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
