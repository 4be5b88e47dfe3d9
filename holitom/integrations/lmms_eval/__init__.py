"""holitom as a model of lmms-eval: ``lmms_eval --model holitom --model_args pretrained=...,method=holitom``.

lmms-eval finds it by the entry point ``holitom`` in the group ``lmms_eval.models``; nothing here imports lmms-eval
before it has asked.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval wants to know about the model: its name and where its class is.

    Raises:
        ImportError: without lmms-eval, which the extra ``holitom[lmms-eval]`` installs.
    """
    try:
        from lmms_eval.models.registry_v2 import ModelManifest
    except ImportError as error:
        raise ImportError("this needs lmms-eval 0.7 or newer: pip install 'holitom[lmms-eval]'") from error
    return ModelManifest("holitom", chat_class_path="holitom.integrations.lmms_eval.model.Holitom")
