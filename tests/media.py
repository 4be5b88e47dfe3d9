"""Small videos made at test time. Each frame carries its own number in its pixels."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import transformers
from packaging.version import Version

samples_by_fractions = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"),
    reason="before 5.18, transformers cut the step between sampled frames to an integer",
)

BITS, BLOCK = 16, 8
HEIGHT, WIDTH = 48, 64


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) uint8: the number as black and white blocks in the two rows at the top, moving grey below."""
    frame = np.empty((height, width, 3), np.uint8)
    shade = (np.arange(width) * 2 + number * 3) % 200 + 20
    frame[:] = shade[None, :, None]
    frame[:, : width // 8] //= 2
    for bit in range(BITS):
        row, column = divmod(bit, BITS // 2)
        frame[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that :func:`numbered` painted, also after lossy coding."""
    blocks = frame[: 2 * BLOCK, : BLOCK * BITS // 2].reshape(2, BLOCK, BITS // 2, BLOCK, 3).mean(axis=(1, 3, 4))
    return int(((blocks.reshape(-1) > 127) << np.arange(BITS)).sum())


def write_video(
    path: Path,
    frames: int = 60,
    codec: str = "libx264",
    *,
    rate: int = 30,
    height: int = HEIGHT,
    width: int = WIDTH,
    options: dict[str, str] | None = None,
    pts: list[int] | None = None,
    rotation: float | None = None,
    mirror: bool = False,
    container: dict[str, str] | None = None,
    sound: bool = False,
) -> Path:
    """Encode ``frames`` numbered frames. ``pts``: display times in milliseconds, for a variable frame rate."""
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options={"g": "12", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec in {"libx264", "libvpx", "libvpx-vp9", "mpeg4", "mpeg1video"}:
            stream.bit_rate = 2_000_000
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = output.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number, height, width), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if audio is not None:
            write_tone(output, audio, frames / rate)
    if rotation is not None:
        turn(path, rotation, mirror)
    return path


def turn(path: Path, degrees: float, mirror: bool) -> None:
    """Note in an mp4 that its picture is to be shown turned counter-clockwise, and then mirrored left to right."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    side = -1 if mirror else 1
    matrix = [side * cos, -sin, 0, side * sin, cos, 0, 0, 0, 2**14]  # the last column counts in 2^-30, not 2^-16
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = np.round(np.array(matrix) * 2**16).astype(">i4").tobytes()
    path.write_bytes(data)


def write_tone(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    samples = (np.sin(np.arange(int(8000 * seconds)) / 5) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=8000, frame_size=1024)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(part))
    output.mux(stream.encode())


def write_sound(path: Path, codec: str) -> Path:
    """A file with sound alone."""
    with av.open(str(path), "w") as output:
        write_tone(output, output.add_stream(codec, rate=8000, layout="mono"), 1.0)
    return path
