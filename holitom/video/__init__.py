"""Video input: decoding and sampling, and preprocessing into what the models take."""

from holitom.video.chat import Conversation, Media, Message, model_turn, user_turn
from holitom.video.clip import Clip
from holitom.video.decode import read_video
from holitom.video.errors import VideoError
from holitom.video.prepare import Preprocessor, to_device
from holitom.video.remote import FetchLimits
from holitom.video.sampling import FrameRate, SamplingRule, sample_by_rate, sample_indexes
from holitom.video.sources import Source
from holitom.video.stream import VideoStream, open_video

__all__ = [
    "Clip", "Conversation", "FetchLimits", "FrameRate", "Media", "Message", "Preprocessor", "SamplingRule", "Source",
    "VideoError", "VideoStream", "model_turn", "open_video", "read_video", "sample_by_rate", "sample_indexes",
    "to_device", "user_turn",
]  # fmt: skip
