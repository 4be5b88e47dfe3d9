"""From a video file, a folder of images or an animation to a :class:`Clip` of sampled frames."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from holitom.video.clip import Clip
from holitom.video.container import REPAIR
from holitom.video.errors import VideoError
from holitom.video.film import read_film
from holitom.video.images import is_picture, read_folder, read_picture
from holitom.video.sampling import SamplingRule, sample_indexes

logger = logging.getLogger(__name__)


def read_video(
    source: str | Path,
    frames: int = 32,
    *,
    rule: SamplingRule = "floor",
    size: int | None = None,
    folder_fps: float = 1.0,
) -> Clip:
    """Decode ``frames`` frames, spread evenly over the video by frame number.

    Memory grows with the frames that are kept, not with the length of the film.

    Args:
        source: a video file, an animated GIF, WebP or PNG, a still image, or a folder of images (one frame each, in
            natural order of their names).
        frames: frames wanted, at least 1; a video with fewer gives all it has.
        rule: where the frames are taken, see :func:`holitom.video.sample_indexes`.
        size: bring the shorter side down to this many pixels while decoding; None keeps the size of the file.
        folder_fps: frames per second that a folder of images stands for.

    Returns:
        A :class:`Clip` of T = min(frames, frames in the video), frames (T, H, W, 3) uint8 RGB. A damaged or cut-off
        video of which some frames decode gives a clip sampled over those, with ``warning`` set and logged.

    Raises:
        VideoError: the file is missing, empty, no video, or not one frame of it can be decoded.
        TypeError, ValueError: a parameter is out of its range.
    """
    sample_indexes(1, frames, rule)  # a wrong parameter is the caller's, whatever the file holds
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise TypeError(f"size must be an int number of pixels or None, got {size!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    if not (math.isfinite(folder_fps) and folder_fps > 0):
        raise ValueError(f"folder_fps must be above 0, got {folder_fps}")

    path = existing(source)
    if path.is_dir():
        return read_folder(path, str(source), frames, rule, size, folder_fps)
    if is_picture(path):
        clip = read_picture(path, str(source), frames, rule, size)
    else:
        clip = read_film(path, str(source), frames, rule, size)
    if clip.warning is not None:
        logger.warning(
            "%s: %s; sampling the %d frames that decode. %s", source, clip.warning, clip.total_frames, REPAIR
        )
    return clip


def existing(source: str | Path) -> Path:
    """The path of a video that can be opened.

    Raises:
        VideoError: when there is no such file or folder, or it is empty.
    """
    name = str(source)
    if "://" in name:
        raise VideoError(name, "an address, not a local file", "Download it first and give the path of the file.")
    try:
        path = Path(source).expanduser()
        if not path.exists():
            raise VideoError(name, "no such file or folder", "Check the path.")
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError(name, "the file is empty (0 bytes)", "Copy or download it again.")
        if not (path.is_file() or path.is_dir()):
            raise VideoError(name, "neither a file nor a folder", "Give a video file or a folder of images.")
    except OSError as error:
        raise VideoError(name, f"cannot be opened ({error.strerror})", "Check the path and its permissions.") from error
    return path
