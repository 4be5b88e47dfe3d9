"""The small files beside a checkpoint's weights: its kind, its processors' settings, its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class CheckpointFiles:
    """Files of a local folder or a hub repository, fetched once each when they are asked for.

    Args:
        name: path of a folder, or a hub id such as ``llava-hf/llava-onevision-qwen2-7b-ov-hf``.
        hub: passed to transformers' ``cached_file``: revision, token, cache_dir, local_files_only.
    """

    def __init__(self, name: str | Path, **hub: Any) -> None:
        self.name = str(name)
        self.hub = hub

    def text(self, filename: str) -> str | None:
        """The content of a file; None where the checkpoint has no such file."""
        from transformers.utils.hub import cached_file

        path = cached_file(self.name, filename, _raise_exceptions_for_missing_entries=False, **self.hub)
        return None if path is None else Path(path).read_text(encoding="utf-8")

    def json(self, filename: str) -> dict[str, Any]:
        """The content of a JSON file; empty where the checkpoint has no such file."""
        text = self.text(filename)
        if text is None:
            return {}
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{filename} of {self.name} is not valid JSON ({error}): fetch the checkpoint again"
            ) from None
        if not isinstance(content, dict):
            raise ValueError(f"{filename} of {self.name} must hold an object, got {type(content).__name__}")
        return content

    def config(self) -> dict[str, Any]:
        """``config.json``, which every checkpoint has."""
        config = self.json("config.json")
        if not config:
            raise ValueError(
                f"{self.name} holds no config.json: give the folder of a transformers checkpoint, "
                "or the id of one on the hub"
            )
        return config

    def processor(self) -> dict[str, Any]:
        """``processor_config.json``."""
        return self.json("processor_config.json")

    def video_processor(self) -> Mapping[str, Any]:
        """Settings for videos: nested in the processor's since transformers 5, in a file of their own before."""
        return (
            self.processor().get("video_processor")
            or self.json("video_preprocessor_config.json")
            or self.json("preprocessor_config.json")
        )

    def image_processor(self) -> Mapping[str, Any]:
        """Settings for images."""
        return self.processor().get("image_processor") or self.json("preprocessor_config.json")

    def chat_template(self) -> str | None:
        """The processor's template, where transformers looks for it; None where only the tokenizer may have one."""
        template = self.processor().get("chat_template")
        if template is None:
            template = self.json("chat_template.json").get("chat_template") or self.text("chat_template.jinja")
        if isinstance(template, dict):
            template = template.get("default")
        return template
