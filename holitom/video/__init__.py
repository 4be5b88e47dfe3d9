"""Video input: decoding and sampling, and preprocessing into what the models take."""

from holitom.video.clip import Clip
from holitom.video.decode import read_video
from holitom.video.errors import VideoError
from holitom.video.sampling import SamplingRule, sample_indexes

__all__ = ["Clip", "SamplingRule", "VideoError", "read_video", "sample_indexes"]
