"""What happens when vLLM starts: settings are checked, and its path for pruned videos is switched on.

Importing this needs vLLM. It reaches into three places of it that are no public interface (the table of checks, the
runner for CPUs and the check of requests; their names stand in :mod:`.vllm_names`), so a version that was not tested
gets a warning.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any, ClassVar

import vllm
from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig
from vllm.model_executor.models.interfaces import supports_multimodal_pruning
from vllm.model_executor.models.registry import ModelRegistry

from holitom.integrations.vllm.architectures import (
    ARCHITECTURES,
    CALLED,
    ON_BACKEND,
    OWN,
    RANKS,
    on_backend,
    serving_architecture,
    stock_architecture,
)
from holitom.integrations.vllm.config import KEY, ServingConfig
from holitom.integrations.vllm.launch import TESTED
from holitom.integrations.vllm.vllm_names import REQUEST_CHECKS

logger = logging.getLogger(__name__)

SWITCH = 1e-9  # any rate above 0 switches vLLM's path on; counts come from the method


def add_architectures() -> None:
    """Adds the compressing architectures beside vLLM's own. Their modules are named, not imported."""
    classes = {ours: f"transformers_backend:{_on_backend(stock)}" for stock, ours in ON_BACKEND.items()}
    for stock, ours in ARCHITECTURES.items():
        classes[ours] = f"{OWN[stock]}:{ours}" if stock in OWN else f"transformers_backend:{_on_backend(stock)}"
    for ours, place in classes.items():
        if ours not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(ours, f"holitom.integrations.vllm.{place}")
        if ours not in MODELS_CONFIG_MAP:
            MODELS_CONFIG_MAP[ours] = _behind_vllms(stock_architecture(ours), Checks)
    for stock in (*ARCHITECTURES, *CALLED, "TransformersMultiModalForCausalLM", "TransformersMultiModalMoEForCausalLM"):
        if not issubclass(MODELS_CONFIG_MAP.get(stock, VerifyAndUpdateConfig), StockChecks):
            MODELS_CONFIG_MAP[stock] = _behind_vllms(stock, StockChecks)


def _on_backend(stock: str) -> str:
    return "HoliTomTransformersMoE" if "Moe" in stock else "HoliTomTransformers"


def _behind_vllms(stock: str, checks: type[Any]) -> type[Any]:
    """Our checks, which come behind what vLLM itself checks and sets for a stock architecture."""
    return type(checks.__name__, (checks,), {"vllms": MODELS_CONFIG_MAP.get(stock, VerifyAndUpdateConfig)})


class Checks(VerifyAndUpdateConfig):  # type: ignore[misc]
    """vLLM calls these for our architectures, in the process that was started, before it loads anything."""

    vllms: ClassVar[Any] = VerifyAndUpdateConfig
    """What vLLM itself checks and sets for the stock architecture; it comes first."""

    @classmethod
    def verify_and_update_model_config(cls, model_config: Any) -> None:
        """Reads the settings and switches vLLM's path for pruned videos on.

        Raises:
            TypeError: for settings of a wrong type.
            ValueError: for wrong settings, and for options of vLLM that do not go with them.
        """
        cls.vllms.verify_and_update_model_config(model_config)
        if ".".join(vllm.__version__.split(".")[:2]) not in TESTED:
            logger.warning("holitom was tested with vLLM %s, this is %s", ", ".join(TESTED), vllm.__version__)
        config = ServingConfig.of_hf_config(model_config.hf_config)
        media = model_config.multimodal_config
        if media.video_pruning_rate not in (None, 0.0, SWITCH):
            raise ValueError(
                f"--video-pruning-rate {media.video_pruning_rate} does not go with holitom's architecture, where the "
                f"method's settings decide how many tokens stay: leave it out, and set retention to "
                f"{1 - media.video_pruning_rate:g} instead"
            )
        if media.enable_mm_embeds:
            raise ValueError(
                "--enable-mm-embeds does not go with holitom's architecture: videos that come as embeddings have no "
                "patches to look at. Leave it out, or compress before you send them"
            )
        if KEY in (media.mm_processor_kwargs or {}):
            raise ValueError(
                f'--mm-processor-kwargs has settings under "{KEY}", where those of single requests stand: what holds '
                "for all are the method's settings in hf_overrides"
            )
        ours = model_config.architecture
        if "tower" in config.method.stages and not on_backend(ours):
            raise ValueError(
                f"{config.method.name} merges inside the vision tower, and that of {ours} is vLLM's, without hooks in "
                "front of its blocks: leave that stage out, or take an architecture of the Transformers backend "
                f"({', '.join(ON_BACKEND.values())})"
            )
        if media.mm_encoder_tp_mode == "data" and config.method.needs:
            raise ValueError(
                f"--mm-encoder-tp-mode data does not go with {config.method.name}, which looks at all heads of the "
                "vision tower on every rank: leave it at weights, or use a method that needs no scores (evs, vidcom2)"
            )
        if stock_architecture(ours) == "VideoLlama3ForConditionalGeneration":
            # tokens that its processor takes out would leave frames with holes
            media.mm_processor_kwargs = {"use_token_compression": False, **(media.mm_processor_kwargs or {})}
        media.video_pruning_rate = SWITCH

    @classmethod
    def verify_and_update_config(cls, vllm_config: Any) -> None:
        """Looks at options that have nothing to do with the model.

        Raises:
            ValueError: for one that would hide the vision tower from the method.
        """
        cls.vllms.verify_and_update_config(vllm_config)
        config = ServingConfig.of_hf_config(vllm_config.model_config.hf_config)
        looks = config.method.needs or "tower" in config.method.stages
        if vllm_config.compilation_config.compile_mm_encoder and looks:
            raise ValueError(
                f"compile_mm_encoder does not go with {config.method.name}, which looks into the vision tower while it "
                "runs: leave it false, or use a method that needs no scores (evs, vidcom2)"
            )
        ours, ranks = vllm_config.model_config.architecture, vllm_config.parallel_config.tensor_parallel_size
        if ranks > 1 and on_backend(ours) and stock_architecture(ours) not in RANKS:
            raise ValueError(
                f"--tensor-parallel-size {ranks} does not go with {stock_architecture(ours)} on the Transformers "
                f"backend, where {', '.join(RANKS)} alone was shown to answer as one rank does: leave it at 1 "
                "(--data-parallel-size serves more requests on several GPUs)"
            )
        if config.method.tower_needs and ranks > 1:
            raise ValueError(
                f"{config.method.name} merges inside the vision tower by its keys, of which each tensor-parallel rank "
                "has those of its own heads: leave --tensor-parallel-size at 1, or put renewal in the tower"
            )


class StockChecks(VerifyAndUpdateConfig):  # type: ignore[misc]
    """vLLM calls these for its own architectures that have a counterpart here."""

    vllms: ClassVar[Any] = VerifyAndUpdateConfig
    """See :class:`Checks`."""

    @classmethod
    def verify_and_update_model_config(cls, model_config: Any) -> None:
        """Refuses settings that nothing would read.

        Raises:
            ValueError: when settings of holitom come without its architecture.
        """
        cls.vllms.verify_and_update_model_config(model_config)
        if getattr(model_config.hf_config, KEY, None) is not None:
            ours = serving_architecture(model_config.hf_config.architectures[0])
            raise ValueError(
                f'hf_overrides has settings under "{KEY}" and no architecture that reads them: put "architectures": '
                f'["{ours}"] beside them'
            )

    @classmethod
    def verify_and_update_config(cls, vllm_config: Any) -> None:
        """What vLLM itself does."""
        cls.vllms.verify_and_update_config(vllm_config)


def mend_cpu_runner() -> None:
    """vLLM's runner for CPUs forgets to ask a model whether it prunes; its runner for GPUs asks when it loads one."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    load = CPUModelRunner.load_model
    if hasattr(load, "asks_for_pruning"):
        return

    @functools.wraps(load)
    def load_and_ask(self: Any, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        media = self.model_config.multimodal_config
        self.is_multimodal_pruning_enabled = (
            media is not None
            and media.is_multimodal_pruning_enabled()
            and supports_multimodal_pruning(self.get_model())
        )
        self.requires_sequential_video_encoding = hasattr(self.get_model(), "requires_sequential_video_encoding")

    load_and_ask.asks_for_pruning = True  # type: ignore[attr-defined]
    CPUModelRunner.load_model = load_and_ask


def admit_settings() -> None:
    """Lets requests bring settings of holitom, and nothing else, without ``--trust-request-mm-kwargs``.

    They are checked and never ask for more than the server keeps. Called where the processor of one of our
    architectures is made, so servers of stock ones refuse them as ever.
    """
    for path in REQUEST_CHECKS:
        module, _, name = f"vllm.{path}".rpartition(".")
        check = getattr(sys.modules.get(module), name, None)
        if check is not None and not hasattr(check, "admits_settings"):
            setattr(sys.modules[module], name, _admitting(check))


def _admitting(check: Any) -> Any:
    @functools.wraps(check)
    def admitting(*, mm_processor_kwargs: dict[str, Any] | None, **more: Any) -> None:
        others = {key: value for key, value in (mm_processor_kwargs or {}).items() if key != KEY}
        check(mm_processor_kwargs=others, **more)

    admitting.admits_settings = True  # type: ignore[attr-defined]
    return admitting
