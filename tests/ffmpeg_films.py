"""Numbered frames made into films by the ``ffmpeg`` command: containers, codecs, B-frames, joins, edit lists and rates.

Each recipe is a list of commands that leave a file; ``IN`` stands for the raw frames.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from media import numbered

HEIGHT, WIDTH, FRAMES = 64, 96, 72
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")

X264 = "-c:v libx264 -preset veryfast -crf 16 -g 12"
X265 = "-c:v libx265 -preset ultrafast -crf 16 -x265-params log-level=none:keyint=12"
OPEN = "-x264-params open-gop=1:b-adapt=0:scenecut=0"
MPEG4, MPEG2, MPEG1 = ("-c:v " + codec + " -q:v 2 -g 12" for codec in ("mpeg4", "mpeg2video", "mpeg1video"))
MSMPEG4, WMV2, FLV1, MJPEG = ("-c:v " + codec + " -q:v 2" for codec in ("msmpeg4", "wmv2", "flv", "mjpeg"))
VP8 = "-c:v libvpx -deadline realtime -b:v 1M -g 12"
ALTREF = "-c:v libvpx -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16 -b:v 1M -g 30"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M -g 12"
AV1 = "-c:v libaom-av1 -cpu-used 8 -usage realtime -b:v 1M -g 12"


def one(name: str, options: str, source: str = "IN") -> list[str]:
    return [f"{source} {options} {name}"]


def recipes() -> dict[str, list[str]]:
    """Name of the file -> arguments of the commands that make it; ``cat a b > c`` joins."""
    films: dict[str, list[str]] = {}
    for suffix in ("mp4", "mov", "mkv", "ts", "avi", "flv", "asf", "mxf", "nut", "h264", "3gp"):
        for b in (0, 3):
            films[f"h264-b{b}.{suffix}"] = one("OUT", f"{X264} -bf {b}")
    for suffix in ("mp4", "mkv", "ts", "hevc"):
        for b in (0, 3):
            films[f"hevc-b{b}.{suffix}"] = one("OUT", f"{X265}:bframes={b}")
    for suffix in ("avi", "mp4", "mkv", "m4v", "ts"):
        for b in (0, 2):
            films[f"mpeg4-b{b}.{suffix}"] = one("OUT", f"{MPEG4} -bf {b}")
    for suffix in ("mpg", "vob", "ts", "mxf", "m2v", "mkv"):
        for b in (0, 2):
            films[f"mpeg2-b{b}.{suffix}"] = one("OUT", f"{MPEG2} -bf {b}")
    others = {
        "mpeg1.mpg": f"{MPEG1} -bf 2",
        "vp8.webm": VP8,
        "altref.webm": ALTREF,
        "vp9.webm": VP9,
        "vp9.mp4": VP9,
        "av1.mp4": AV1,
        "av1.webm": AV1,
        "vp8.ivf": VP8,
        "mjpeg.avi": MJPEG,
        "mjpeg.mov": MJPEG,
        "mjpeg.mjpeg": MJPEG,
        "prores.mov": "-c:v prores_ks",
        "ffv1.mkv": "-c:v ffv1",
        "huff.avi": "-c:v huffyuv",
        "raw.avi": "-c:v rawvideo",
        "theora.ogv": "-c:v libtheora -q:v 9 -g 12",
        "wmv2.wmv": WMV2,
        "msmpeg4.avi": MSMPEG4,
        "flv1.flv": FLV1,
        "png.mov": "-c:v png",
        "animation.mov": "-c:v qtrle",
        "zmbv.avi": "-c:v zmbv",
        "rv20.rm": "-c:v rv20 -q:v 2",
        "uncompressed.y4m": "-f yuv4mpegpipe -pix_fmt yuv420p",
        "xvid-b.avi": "-c:v libxvid -q:v 2 -bf 2 -g 12",
        "pyramid.mp4": f"{X264} -bf 5 -b-pyramid normal -refs 5",
        "opengop.mp4": f"{X264} -bf 3 {OPEN}",
        "opengop.ts": f"{X264} -bf 3 {OPEN}",
        "opengop.avi": f"{X264} -bf 3 {OPEN}",
        "opengop.mkv": f"{X264} -bf 3 {OPEN}",
        "refresh.ts": f"{X264} -bf 0 -x264-params intra-refresh=1",
        "interlaced.ts": f"{X264} -bf 2 -flags +ilme+ildct",
        "interlaced.mpg": f"{MPEG2} -bf 2 -flags +ilme+ildct",
        "fragments.mp4": f"{X264} -bf 3 -movflags frag_keyframe",
        "faststart.mp4": f"{X264} -bf 3 -movflags faststart",
        "sliced.mp4": f"{X264} -bf 3 -slices 4",
    }
    for name, options in others.items():
        films[name] = one("OUT", options)
    for rate in ("24000/1001", "10", "60"):
        for suffix in ("mp4", "mkv", "ts", "avi", "mpg"):
            if (rate, suffix) != ("10", "mpg"):
                codec = f"{MPEG2} -bf 2" if suffix == "mpg" else f"{X264} -bf 3"
                films[f"rate-{rate.partition('/')[0]}.{suffix}"] = one("OUT", f"{codec} -r {rate}", f"-r {rate} IN")
    parts = {
        "ts": f"{X264} -bf 3",
        "mpg": f"{MPEG2} -bf 2",
        "vob": f"{MPEG2} -bf 2",
        "webm": VP9,
        "mkv": f"{X264} -bf 3",
    }
    parts |= {"flv": f"{X264} -bf 3", "h264": f"{X264} -bf 3", "mjpeg": MJPEG, "m2v": f"{MPEG2} -bf 2"}
    for suffix, codec in parts.items():
        cut = [
            f"IN {codec} -frames:v 30 a.{suffix}",
            f"-r 30 IN {codec} -r 30 -vf trim=start_frame=40,setpts=PTS-STARTPTS b.{suffix}",
        ]
        films[f"joined.{suffix}"] = [*cut, f"cat a.{suffix} b.{suffix} > OUT"]
    ts = f"{X264} -bf 3 -frames:v 24"
    films["three.ts"] = [f"IN {ts} a.ts", f"IN {ts} b.ts", f"IN {ts} c.ts", "cat a.ts b.ts c.ts > OUT"]
    films["ahead.ts"] = [f"IN {ts} a.ts", f"IN {ts} -output_ts_offset 1000 b.ts", "cat a.ts b.ts > OUT"]
    films["behind.ts"] = [f"IN {ts} -output_ts_offset 1000 a.ts", f"IN {ts} b.ts", "cat a.ts b.ts > OUT"]
    films["wrap.ts"] = one("OUT", f"{X264} -bf 3 -output_ts_offset 95441.4")
    films["late.mkv"] = one("OUT", f"{X264} -bf 3 -output_ts_offset 10")
    films["late.ts"] = one("OUT", f"{MPEG2} -bf 2 -output_ts_offset 100")
    for b in (0, 3):
        film = [f"IN {X264} -g 24 -bf {b} a.mp4"]
        films[f"begin-b{b}.mp4"] = [*film, "-ss 1.3 -i a.mp4 -c copy OUT"]
        films[f"end-b{b}.mp4"] = [*film, "-t 1.5 -i a.mp4 -c copy OUT"]
        films[f"middle-b{b}.mov"] = [*film, "-ss 0.6 -t 1.2 -i a.mp4 -c copy OUT"]
        films[f"begin-b{b}.mkv"] = [*film, "-ss 1.3 -i a.mp4 -c copy OUT"]
        films[f"begin-b{b}.ts"] = [*film, "-ss 1.3 -i a.mp4 -c copy OUT"]
    films["raw-h264.mp4"] = [f"IN {X264} -bf 3 a.h264", "-i a.h264 -c copy OUT"]
    films["raw-hevc.mp4"] = [f"IN {X265}:bframes=3 a.hevc", "-i a.hevc -c copy OUT"]
    films["raw-m4v.avi"] = [f"IN {MPEG4} -bf 2 a.m4v", "-i a.m4v -c copy OUT"]
    films["from-mkv.avi"] = [f"IN {X264} -bf 3 a.mkv", "-i a.mkv -c copy -bsf:v h264_mp4toannexb OUT"]
    films["from-avi.mkv"] = [f"IN {MPEG4} -bf 2 a.avi", "-fflags +genpts -i a.avi -c copy OUT"]
    # Not HEVC: FFmpeg 5 makes grey frames of what cannot be decoded before the first keyframe, FFmpeg 8 none.
    for name, codec in {"h264": f"{X264} -bf 3", "mpeg2": f"{MPEG2} -bf 2", "open": f"{X264} -bf 3 {OPEN}"}.items():
        films[f"torn-{name}.ts"] = [f"IN {codec} a.ts", "tail a.ts > OUT"]
    films["torn.mpg"] = [f"IN {MPEG2} -bf 2 a.mpg", "tail a.mpg > OUT"]
    pause = "-vf 'setpts=(N+gte(N\\,30)*200)/25/TB' -fps_mode passthrough"  # two packets of the mp4 have one time
    films["pause.mp4"] = one("OUT", f"{pause} {X264} -bf 2")
    films["pause.mkv"] = one("OUT", f"{pause} {X264} -bf 2")
    uneven = "-vf setpts=(N+floor(N/10)*5)/25/TB -fps_mode passthrough"
    for suffix in ("mp4", "mkv", "ts", "mov"):
        films[f"uneven.{suffix}"] = one("OUT", f"{uneven} {X264} -bf 3")
    return films


def raw(folder: Path) -> Path:
    """The frames that all films are made of."""
    path = folder / "frames.raw"
    path.write_bytes(b"".join(numbered(number, HEIGHT, WIDTH).tobytes() for number in range(FRAMES)))
    return path


def make(name: str, commands: list[str], source: Path, folder: Path) -> Path:
    """Runs the commands of a recipe."""
    given = f"-f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -i {source}"
    for command in commands:
        words = shlex.split(command.replace("OUT", name))
        if words[0] == "cat":
            (folder / name).write_bytes(b"".join((folder / part).read_bytes() for part in words[1:-2]))
        elif words[0] == "tail":  # the last six tenths, from any byte
            data = (folder / words[1]).read_bytes()
            (folder / name).write_bytes(data[len(data) * 4 // 10 :])
        else:
            pixels = [] if "-pix_fmt" in command or "copy" in words else ["-pix_fmt", _pixels(command)]
            words = shlex.split(
                command.replace("OUT", "").replace("IN", given if "-r" in words[:1] else f"-r 25 {given}")
            )
            target = [name] if "OUT" in command else [words.pop()]
            run = ["ffmpeg", "-loglevel", "error", "-y", *words, *pixels, "-threads", "1", *target]
            subprocess.run(run, cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return folder / name


def _pixels(command: str) -> str:
    if "mjpeg" in command:
        return "yuvj420p"
    if any(codec in command for codec in ("huffyuv", "prores")):
        return "yuv422p10le" if "prores" in command else "yuv422p"
    return (
        "rgb24"
        if any(codec in command for codec in ("c:v png", "qtrle"))
        else "bgr0"
        if "zmbv" in command
        else "yuv420p"
    )


def decoded(path: Path) -> np.ndarray:
    """(T, H, W, 3): what the ``ffmpeg`` command makes of a film, every frame once."""
    run = ["ffmpeg", "-loglevel", "quiet", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    result = subprocess.run(
        [*run, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    return np.frombuffer(result.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
