"""Long videos: read, encoded and merged window by window, until what is left fits in front of a question."""

from holitom.prefix.budget import Budget
from holitom.prefix.compress import Progress, VideoPrefix, WindowRecord, compress_video
from holitom.prefix.reading import Reading
from holitom.prefix.windows import Windows

__all__ = ["Budget", "Progress", "Reading", "VideoPrefix", "WindowRecord", "Windows", "compress_video"]
