"""Video input: decoding and sampling, and preprocessing into what the models take."""

from holitom.video.chat import Conversation, Media, Message, model_turn, user_turn
from holitom.video.clip import Clip
from holitom.video.decode import read_video
from holitom.video.errors import VideoError
from holitom.video.prepare import Preprocessor, to
from holitom.video.sampling import SamplingRule, sample_indexes

__all__ = [
    "Clip",
    "Conversation",
    "Media",
    "Message",
    "Preprocessor",
    "SamplingRule",
    "VideoError",
    "model_turn",
    "read_video",
    "sample_indexes",
    "to",
    "user_turn",
]
