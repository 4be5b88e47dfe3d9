"""How many pixels are decoded and kept before a video is refused: a few bytes can ask for any number."""

from __future__ import annotations

from PIL import Image

from holitom.video.errors import VideoError

KEPT = 5  # as many of the largest frames may be kept of one video
DECODED = 16  # as many may be decoded of one animation, in which every frame is painted over the one before
PAINTED = 4  # a frame of an animation may be this much smaller: painting takes several copies of it
RAISE = "or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file."


def require_frame(source: str, pixels: int, share: int = 1) -> None:
    """Refuses frames larger than ``PIL.Image.MAX_IMAGE_PIXELS``, Pillow's own setting (None: any size).

    Args:
        source: the video's name in the message.
        pixels: of one of its frames.
        share: divides what they may have.

    Raises:
        VideoError: for more pixels than that.
    """
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most // share:
        raise VideoError(
            source,
            f"a frame of {pixels:,} pixels is larger than the {most // share:,} that one may have",
            f"Make it smaller, {RAISE}",
        )


def require_decoded(source: str, frames: int, height: int, width: int) -> None:
    """Refuses animations with more pixels in all their frames than ``DECODED`` of the largest frames have.

    Args:
        source: the animation's name in the message.
        frames: its frames.
        height: of its frames, in pixels.
        width: of its frames, in pixels.

    Raises:
        VideoError: for more pixels than that.
    """
    require_frame(source, height * width, PAINTED if frames > 1 else 1)
    _require_all(source, frames, height, width, DECODED, "an animation may have", "Make it smaller or shorter,")


def require_kept(source: str, frames: int, height: int, width: int) -> None:
    """Refuses to keep more pixels of one video than ``KEPT`` of the largest frames have.

    Args:
        source: the video's name in the message.
        frames: how many are to be kept.
        height: in pixels, as they are kept.
        width: in pixels, as they are kept.

    Raises:
        VideoError: for more pixels than that.
    """
    advice = "Sample fewer frames, give size=, read it in windows with open_video,"
    _require_all(source, frames, height, width, KEPT, "kept of one video", advice)


def _require_all(source: str, frames: int, height: int, width: int, times: int, what: str, advice: str) -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and frames * height * width > times * most:
        pixels = f"{frames} frames of {width}x{height} are more than the {times * most:,} pixels {what}"
        raise VideoError(source, pixels, f"{advice} {RAISE}")
