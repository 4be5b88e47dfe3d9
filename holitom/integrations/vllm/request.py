"""Settings of a single request: less than the server keeps, or another way to choose it. Checked here, without vLLM.

A request brings them as ``mm_processor_kwargs={"holitom": {"retention": 0.05}}``. vLLM's processor sizes the
placeholders by them, and they travel beside the pixels to the model, which merges by them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from holitom.integrations.vllm.compressor import Compressor
from holitom.integrations.vllm.config import KEY, OWN_COUNTS, ServingConfig
from holitom.methods.chain import Chain
from holitom.methods.registry import split_text
from holitom.models.tower_names import tower_name

FIELD = "holitom_settings"
"""What the settings are called among a video's processed inputs."""


def take_settings(options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A request's settings (None: it has none), and its other options, which are for the model's own processor.

    Args:
        options: ``mm_processor_kwargs`` of a request.

    Raises:
        ValueError: when the settings stand where nothing would read them.
    """
    rest = dict(options)
    asked = rest.pop(KEY, None)
    scopes = [(name, value) for name, value in rest.items() if isinstance(value, Mapping)]
    for place, there in (("mm_processor_kwargs", rest), *scopes):
        lost = {KEY, "method", "retention"} & set(there)
        if lost:
            raise ValueError(
                f"{', '.join(sorted(lost))} in {place} would be read by nobody: settings of a request stand together "
                f'under one key, mm_processor_kwargs={{"{KEY}": {{"method": "spread", "retention": 0.05}}}}'
            )
    return asked, rest


def for_request(server: ServingConfig, asked: str | Mapping[str, Any]) -> ServingConfig:
    """The config that one request gets. That it keeps no more than the server is checked with each video's shape.

    Nothing but method and retention can be asked for: another setting could fail on a video while it is encoded, which
    would end vLLM's engine. The server's own settings stay for its own method.

    Args:
        server: the server's config.
        asked: ``"spread:retention=0.05"``, ``{"method": "spread"}`` with the server's retention, or
            ``{"retention": 0.05}`` with its method.

    Raises:
        TypeError: naming what has a wrong type.
        ValueError: naming the value and what would work.
    """
    if isinstance(server.method, Chain):
        tower, before = server.method.parts
        return ServingConfig(Chain.of(tower, for_request(ServingConfig(before), asked).method))
    given: dict[str, Any]
    if isinstance(asked, str):
        name, given = (asked, {}) if "|" in asked else split_text(asked)
        given["method"] = name
    elif isinstance(asked, Mapping):
        given = {str(key): value for key, value in asked.items()}
    else:
        raise TypeError(f'settings of a request are text or a mapping, as in {{"retention": 0.05}}; got {asked!r}')
    unknown = sorted(set(given) - {"method", "retention"})
    if unknown:
        raise ValueError(
            f"a request cannot set {', '.join(map(repr, unknown))}, only 'method' and 'retention': "
            "everything else is the server's"
        )
    name = given.pop("method", server.method.name)
    usual = server.settings()
    if name == server.method.name:
        own = set(OWN_COUNTS) if "retention" in given else set()
        config = ServingConfig.parse({**{key: value for key, value in usual.items() if key not in own}, **given})
    else:
        share = {"retention": usual["retention"]} if "retention" in usual and "|" not in str(name) else {}
        config = ServingConfig.parse({"method": name, **share, **given})
    if "tower" in config.method.stages:
        raise ValueError(f"{asked!r}: what happens inside the vision tower is the server's choice: leave it out")
    beyond = sorted(set(config.method.needs) - set(server.method.needs))
    if beyond:
        raise ValueError(
            f"{config.method.name} reads {' and '.join(beyond)} of the vision tower, and this server, started with "
            f"{server.method.name}, looks at {' and '.join(sorted(server.method.needs)) or 'none of that'}: ask for a "
            "method that needs no more, or start the server with one that does"
        )
    return config


def token_count(server: ServingConfig, config: ServingConfig, frames: int, grid: tuple[int, int]) -> int:
    """How many tokens of a video a request keeps.

    Args:
        server: the server's config, whose count vLLM has reserved memory for.
        config: the request's.
        frames: T.
        grid: (h, w).

    Raises:
        ValueError: when that is more than the server keeps.
    """
    count, most = config.token_count(frames, grid), server.token_count(frames, grid)
    if count > most:
        raise ValueError(
            f"{json.dumps(config.settings())} keeps {count} tokens of a video of {frames} x {grid[0]} x {grid[1]}, and "
            f"this server keeps {most}: a request may ask for less than that, not for more"
        )
    return count


def to_tensor(config: ServingConfig) -> Tensor:
    """Settings as bytes, uint8: what vLLM sends to the model are tensors."""
    return torch.frombuffer(bytearray(json.dumps(config.settings()).encode()), dtype=torch.uint8)


class RequestSettings:
    """Mixed into a served model: merges a batch of videos by the settings that came with it.

    vLLM puts only videos with the same settings into a batch (:data:`FIELD` is a shared field), and calls one after
    the other.
    """

    config: Any
    compressor: Compressor

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """vLLM's own, with the request's settings, if it has some."""
        with self.requested(kwargs.pop(FIELD, None)):
            return super().embed_multimodal(**kwargs)  # type: ignore[misc]

    @contextmanager
    def requested(self, sent: Tensor | None) -> Iterator[None]:
        """Compresses by a request's settings inside the block.

        Args:
            sent: as :func:`to_tensor` made them; None: the server's.
        """
        server = self.compressor
        if sent is not None:
            method = ServingConfig.parse(json.loads(bytes(sent.tolist()))).method
            config = ServingConfig(method.for_tower(tower_name(self.config)))
            self.compressor = dataclasses.replace(server, config=config)
        try:
            yield
        finally:
            self.compressor = server
