"""Which container formats are opened: those whose whole content is in the file that was given.

Playlists and manifests (HLS, DASH, concat, IMF, SDP), numbered images, index files with a second file beside them,
scripts and devices name other files or addresses, which would be read with the rights of this process.
"""

from __future__ import annotations

import re
from pathlib import Path

_FILMS = (
    "3dostr 4xm alias_pix amv anm apng apv argo_brp asf asf_o av1 avi avif avs avs2 avs3 bethsoftvid bfi bink bmv c93 "
    "cavsvideo cdg cdxl cine dhav dirac dnxhd dsicin dv dxa ea ea_cdata evc film_cpk filmstrip flic flv frm gdv gif "
    "gxf h261 h263 h264 hevc hnm idcin iff ifv ingenient ipmovie ipu iss iv8 ivf ivr jpegxl_anim jv kux live_flv "
    "lmlm4 lvf lxf m4v matroska webm mgsts mjpeg mjpeg_2000 mm moflex mov mp4 mpeg mpegts mpegtsraw mpegvideo mpjpeg "
    "mtv mv mvi mxf mxg nc nsv nut nuv obu ogg paf pdv pmp psxstr pva r3d rl2 rm roq rpl ser sga siff smjpeg smk "
    "smush swf thp tiertexseq ty usm vc1 vc1test vividas vivo vmd vvc wc3movie wtv xmv yop yuv4mpegpipe"
)
_PICTURES = (
    "bmp_pipe cri_pipe dds_pipe dpx_pipe exr_pipe fits gem_pipe hdr_pipe ico j2k_pipe jpeg_pipe jpegls_pipe "
    "jpegxl_pipe jpegxs_pipe pam_pipe pbm_pipe pcx_pipe pfm_pipe pgm_pipe pgmyuv_pipe pgx_pipe phm_pipe photocd_pipe "
    "pictor_pipe png_pipe ppm_pipe psd_pipe qdraw_pipe qoi_pipe sgi_pipe sunrast_pipe tiff_pipe vbn_pipe webp_pipe "
    "xbm_pipe xpm_pipe xwd_pipe"
)
# Opened only to say that there is no film inside.
_SOUND = (
    "aa aac aax ac3 ac4 ace act adp ads adx aea aiff aix amr amrnb amrwb apac ape aptx aptx_hd argo_asf ast au binka "
    "bonk brstm caf codec2 dsf dss dts dtshd eac3 epaf flac fsb g722 g723_1 g726 g729 genh gsm hca hcom iamf ilbc "
    "ircam kvag lc3 loas mca mlp mmf mp3 mpc mpc8 msf mtaf musx nistsphere oma osq pp_bnk pvf qcp qoa redspark rka "
    "rsd rso sbc sds sdx shn sol sox spdif svag svs tak truehd tta vag voc vpk vqf w64 wady wav wavarc wsaud wsd wv "
    "wve xa xvag xwma"
)
_TEXT = (
    "aqtitle ass jacosub lrc microdvd mpl2 pjs realtext sami scc srt stl subviewer subviewer1 sup tedcaptions tty "
    "vplayer webvtt"
)
_PLAYLISTS = "hls concat dash imf"

_LONGEST_HEAD, _LONGEST_JPEG, _LONGEST_GAP = 4096, 2**24, 512  # bytes
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd9-\xfe]")  # of a JPEG, but for those that stand inside a scan's data
_PLAYLIST_HEADS = (
    b"#EXTM3U",
    b"ffconcat version",
    b"[playlist]",
    b"[Reference]",
    b"v=0\r",
    b"v=0\n",
    b"# VobSub index",
)
_MANIFEST_TAGS = (b"<MPD", b"<CompositionPlaylist", b"<AssetMap", b"<SmoothStreamingMedia", b"<manifest", b"<smil")


def openings(playlists: bool) -> dict[str, str]:
    """FFmpeg's options that let it open these formats and no others, and local files only."""
    names = [_FILMS, _PICTURES, _SOUND, _TEXT, *([_PLAYLISTS] if playlists else [])]
    return {
        "format_whitelist": ",".join(" ".join(names).split()),
        "protocol_whitelist": "file,crypto,data" if playlists else "file",
    }


def is_playlist(path: Path) -> bool:
    """Whether a file is a list of other files by its first bytes; for the message only, FFmpeg refuses it anyway."""
    try:
        with path.open("rb") as file:
            head = file.read(_LONGEST_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    return head.startswith(_PLAYLIST_HEADS) or any(tag in head for tag in _MANIFEST_TAGS)


def is_jpeg_stream(path: Path) -> bool:
    """Whether a file is a film of JPEGs one after the other, as network cameras send them.

    A camera's picture that holds further ones (MPO, gain maps) says so in a segment "MPF", and is a still image.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return False
        data = file.read(_LONGEST_JPEG)
    place = 0
    while marker := _MARKER.search(data, place):
        place = marker.end()
        kind = data[place - 1]
        if kind == 0xD9:  # end of the image; what servers write between two is short
            return b"\xff\xd8\xff" in data[place : place + _LONGEST_GAP]
        if kind == 0xE2 and data[place + 2 : place + 6] == b"MPF\0":
            return False
        place += int.from_bytes(data[place : place + 2], "big")  # over the segment; a scan's data comes after it
    return False
