"""Long videos: read, encoded and merged window by window, until what is left fits in front of a question."""

from holitom.long_video.compress import CompressedVideo, Progress, WindowRecord, compress_video
from holitom.long_video.reading import Reading
from holitom.long_video.windows import Budget, Windows

__all__ = ["Budget", "CompressedVideo", "Progress", "Reading", "WindowRecord", "Windows", "compress_video"]
