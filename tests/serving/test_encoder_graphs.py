"""vLLM's own manager of encoder CUDA graphs, with compressed videos, where capture and replay are emulated.

There is no CUDA graph on a CPU. So what a graph would do when it is replayed, running the padded forward on the buffers
it was captured with and leaving its results in others, is done step by step. Everything around it is vLLM's: budgets,
packing, padding, which buffers are filled with what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import answers, assert_same, engine, prompt, two_videos_and_an_image
from serving_checkpoints import build_checkpoint

from holitom.integrations.vllm import ServingConfig

GRAPHED = ("qwen2_5_vl", "qwen3_vl")
BUDGETS = [16, 32, 64]
ITEMS, FRAMES = 4, 12  # videos in a graph, and frames of each
ROUNDING = 1e-5


class Emulated:
    """Stands for ``torch.cuda.CUDAGraph``: what was captured runs again, on the same buffers."""

    def __init__(self, run: Any) -> None:
        self.replay = run


def without_padding(values: dict[str, Any]) -> dict[str, Any]:
    """The borders of sequences as attention on a CPU takes them; on a GPU its kernels skip empty ones themselves."""
    plain = dict(values)
    for name in ("cu_seqlens", "cu_window_seqlens"):
        if name in plain:
            rows = plain["pixel_values"].shape[0]
            borders = plain[name].unique_consecutive()
            borders = borders[: int(borders.argmax()) + 1]
            plain[name] = borders if int(borders[-1]) == rows else torch.cat([borders, borders.new_tensor([rows])])
    return plain


def capture(self: Any, token_budget: int, path: str = "default", axis_keys: tuple[Any, ...] = ()) -> None:
    """In the place of ``EncoderCudaGraphManager._capture_budget_graph``."""
    from vllm.v1.worker.encoder_cudagraph import BudgetGraphMetadata

    buffers = self.model.prepare_encoder_cudagraph_capture_inputs(
        token_budget, self.max_batch_size, self.max_frames_per_batch, self.device, self.dtype, path, axis_keys
    ).values
    with torch.inference_mode():
        output = torch.empty_like(self.model.encoder_cudagraph_forward(without_padding(buffers), path=path))

    @torch.inference_mode()
    def run() -> None:
        output.copy_(self.model.encoder_cudagraph_forward(without_padding(buffers), path=path))

    self._get_graph_set(path)[token_budget] = BudgetGraphMetadata(
        token_budget, self.max_batch_size, self.max_frames_per_batch, Emulated(run), buffers, output
    )


def with_graphs(llm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives an engine's runner the manager that it would have on a GPU."""
    from vllm.config import set_current_vllm_config
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

    monkeypatch.setattr(EncoderCudaGraphManager, "_capture_budget_graph", capture)
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    config = llm.llm_engine.vllm_config
    config.compilation_config.encoder_cudagraph_token_budgets = BUDGETS
    config.compilation_config.encoder_cudagraph_max_vision_items_per_batch = ITEMS
    config.compilation_config.encoder_cudagraph_max_frames_per_batch = ITEMS * FRAMES
    with set_current_vllm_config(config):
        manager = EncoderCudaGraphManager(config, runner.device, runner.dtype, runner.get_model())
        manager.capture(graph_pool="emulated")
    runner.encoder_cudagraph_manager = manager
    return manager


@pytest.fixture(scope="module", params=GRAPHED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(name, tmp_path_factory.mktemp(name))


def asked(name: str) -> list[dict[str, Any]]:
    """Of several sizes, one after another: what one graph leaves behind must not reach the next video."""
    return [
        prompt(name, "one ", ("video", 8, 4), " ?"),
        prompt(name, "short ", ("video", 2, 5), " and ", ("image", 6), " ?"),
        two_videos_and_an_image(name),
        prompt(name, "long ", ("video", 40, 7), " ?"),  # more than a graph holds
        {**prompt(name, "few ", ("video", 8, 9), " ?"), "mm_processor_kwargs": {"holitom": {"retention": 0.1}}},
        prompt(name, "again another ", ("video", 8, 8), " ?"),
    ]


@pytest.mark.parametrize("method", ["holitom", "visionzip", "vidcom2"])  # need scores; scores and keys; nothing
def test_answers_are_those_without_graphs(name: str, method: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    config = ServingConfig.of(method, retention=0.25)
    with engine(checkpoint, name, config, enable_prefix_caching=False) as llm:
        want = [answers(llm, each)[0] for each in asked(name)]
    with engine(checkpoint, name, config, enable_prefix_caching=False) as llm:
        manager = with_graphs(llm, monkeypatch)
        assert manager.supports_modality("image")
        assert manager.supports_modality("video")
        got = [answers(llm, each)[0] for each in asked(name)]
        counts = manager.get_cumulative_stats()
    for one, other in zip(got, want, strict=True):
        assert_same(one, other, ROUNDING)
    assert counts["graph_misses"] == 1, counts
    assert counts["graph_hits"] >= 6, counts
