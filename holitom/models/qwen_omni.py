"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: Qwen's vision towers and decoders, with audio beside videos.

Tokens of audio stay as they are, also where they stand between the frames of the video whose sound they are
(``use_audio_in_video``): to the runtime they are text between frames. Positions have three axes, so each token that is
left keeps its place in time. Qwen3-Omni's are fractions.
"""

from __future__ import annotations

from typing import Any, ClassVar

from holitom.models.base import Adapter, register
from holitom.models.qwen3_vl import Qwen3VLAdapter
from holitom.models.qwen_vl import Qwen25VLAdapter


class _Thinker(Adapter):
    def check_generate(self, arguments: dict[str, Any]) -> None:
        """Refuses the call with which a talker asks for one hidden state for each token of the full prompt."""
        videos = (arguments.get("mm_encoder_outputs") or {}).get("video") is not None
        videos = videos or arguments.get("pixel_values_videos") is not None
        if videos and arguments.get("output_hidden_states"):
            raise ValueError(
                "output_hidden_states=True: speech is made of one hidden state for each token of the prompt, and "
                "compression leaves fewer. Ask for text alone (generation_mode='text'), call the thinker's forward() "
                "for hidden states, or leave the session for this call"
            )


@register("Qwen2_5OmniThinkerForConditionalGeneration")
class Qwen25OmniAdapter(_Thinker, Qwen25VLAdapter):
    """Serves the thinker of Qwen2.5-Omni: Qwen2.5-VL's tower."""

    families: ClassVar[dict[str, str]] = {"Qwen2_5OmniThinkerForConditionalGeneration": "Qwen2.5-Omni"}


@register("Qwen3OmniMoeThinkerForConditionalGeneration")
class Qwen3OmniAdapter(_Thinker, Qwen3VLAdapter):
    """Serves the thinker of Qwen3-Omni: Qwen3-VL's tower and deepstack features, a mixture of experts."""

    families: ClassVar[dict[str, str]] = {"Qwen3OmniMoeThinkerForConditionalGeneration": "Qwen3-Omni"}
