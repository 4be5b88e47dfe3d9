"""Files that name other files."""

from pathlib import Path

from media import write_video


def playlist(folder: Path, kind: str) -> Path:
    """A file that names ``secret.ts``, which lies beside it, or is named by its whole path or address."""
    secret = folder / "secret.ts"
    if not secret.exists():
        write_video(secret, 24)
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.8,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="1"><BaseURL>secret.ts</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )
    texts = {
        "sibling.m3u8": hls.format("secret.ts"),
        "absolute.m3u8": hls.format(secret),
        "address.m3u8": hls.format(secret.as_uri()),
        "hidden.mp4": hls.format(secret),  # under another name
        "list.ffconcat": "ffconcat version 1.0\nfile secret.ts\n",
        "list.txt": f"ffconcat version 1.0\nfile '{secret.as_uri()}'\n",
        "manifest.mpd": dash,
        "session.sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nm=video 5004 RTP/AVP 96\r\n",
    }
    path = folder / kind
    path.write_text(texts[kind])
    return path


KINDS = ["sibling.m3u8", "absolute.m3u8", "address.m3u8", "hidden.mp4", "list.ffconcat", "list.txt", "manifest.mpd"]
KINDS.append("session.sdp")
