"""What differs between model families, one file per family. The default adapter serves most."""

from holitom.models.base import Adapter, VideoLayout, adapter_for, register
from holitom.models.llava_onevision import LlavaOnevisionAdapter
from holitom.models.newlines import with_row_newlines

__all__ = ["Adapter", "LlavaOnevisionAdapter", "VideoLayout", "adapter_for", "register", "with_row_newlines"]
