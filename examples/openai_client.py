"""Asks a model that `holitom serve` (or any vLLM server) serves about a video, with the official OpenAI client.

    pip install openai
    holitom serve MODEL --retention 0.1 -- --allowed-local-media-path /films
    python examples/openai_client.py /films/film.mp4 "What happens?" --local

The video is sent inside the request, as base64. With --local it is also named by its path, which the server opens: the
server must run where the file is, and allow its folder with --allowed-local-media-path.
"""

from __future__ import annotations

import argparse
import base64
import mimetypes
from collections.abc import Sequence
from pathlib import Path

from openai import OpenAI


def as_base64(path: Path) -> str:
    """A data URL that holds the whole file."""
    kind = mimetypes.guess_type(path)[0] or "video/mp4"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def ask(client: OpenAI, video_url: str, question: str) -> str:
    """The answer, and what the prompt cost."""
    answer = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "video_url", "video_url": {"url": video_url}},  # vLLM's addition to OpenAI's format
                    {"type": "text", "text": question},
                ],
            }
        ],
        max_completion_tokens=128,
        temperature=0,
    )
    usage = answer.usage
    return f"{answer.choices[0].message.content} ({usage.prompt_tokens if usage else '?'} prompt tokens)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask twice: with the video inside the request, and by its path."""
    parser = argparse.ArgumentParser(description="Ask a vLLM server about a video.")
    parser.add_argument("video", type=Path)
    parser.add_argument("question")
    parser.add_argument("--url", default="http://localhost:8000/v1", help="where the server is")
    parser.add_argument("--local", action="store_true", help="also let the server open the file by its path")
    given = parser.parse_args(arguments)
    client = OpenAI(base_url=given.url, api_key="none")
    print("sent as base64:", ask(client, as_base64(given.video), given.question))
    if given.local:
        print("opened by the server:", ask(client, given.video.resolve().as_uri(), given.question))


if __name__ == "__main__":
    main()
