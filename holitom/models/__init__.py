"""What differs between model families, one file per family. The default adapter serves most."""

from holitom.models.base import Adapter, PatchRecord, VideoLayout, adapter_for, register, supported
from holitom.models.gemma4 import Gemma4Adapter
from holitom.models.glm4v import Glm4vAdapter
from holitom.models.internvl import InternVLAdapter
from holitom.models.lfm3_vl import Lfm3VlAdapter
from holitom.models.llava_next_video import LlavaNextVideoAdapter, VideoLlavaAdapter
from holitom.models.llava_onevision import LlavaOnevisionAdapter
from holitom.models.newlines import with_row_newlines
from holitom.models.qwen3_vl import Qwen3VLAdapter, Qwen35Adapter
from holitom.models.qwen_derived import CohereCompassAdapter, Cosmos3Adapter, Exaone45Adapter, HyperClovaXAdapter
from holitom.models.qwen_omni import Qwen3OmniAdapter, Qwen25OmniAdapter
from holitom.models.qwen_vl import Qwen25VLAdapter, QwenVLAdapter
from holitom.models.smolvlm import SmolVLMAdapter
from holitom.models.tower_names import tower_name
from holitom.models.video_llama_3 import VideoLlama3Adapter
from holitom.models.wrappers import config_of_part, find_model

__all__ = [
    "Adapter", "CohereCompassAdapter", "Cosmos3Adapter", "Exaone45Adapter", "Gemma4Adapter", "Glm4vAdapter",
    "HyperClovaXAdapter", "InternVLAdapter", "Lfm3VlAdapter", "LlavaNextVideoAdapter", "LlavaOnevisionAdapter",
    "PatchRecord", "Qwen3OmniAdapter", "Qwen3VLAdapter", "Qwen25OmniAdapter", "Qwen25VLAdapter", "Qwen35Adapter",
    "QwenVLAdapter", "SmolVLMAdapter", "VideoLayout", "VideoLlama3Adapter", "VideoLlavaAdapter",
    "adapter_for", "config_of_part", "find_model", "register", "supported", "tower_name", "with_row_newlines",
]  # fmt: skip
