"""The commands of docs/serving.md, as they stand there, in an environment that knows nothing of vLLM."""

from __future__ import annotations

import base64
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import openai
import pytest

from holitom.video.synthetic import suite
from holitom.video.synthetic.files import write_mp4

ROOT = Path(__file__).parents[2]
Server = runpy.run_path(str(ROOT / "benchmarks" / "vllm_server.py"))["Server"]


def documented() -> list[str]:
    """The command that serves the bundled model, without its port."""
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    (line,) = re.findall(r"^\$ (holitom serve tiny .*)$", page, re.MULTILINE)
    words = shlex.split(line)
    return words[: words.index("--port")]


def test_the_bundled_model_answers_its_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith(("VLLM_", "HF_"))]:
        monkeypatch.delenv(name)
    (clip,) = suite("test", 1)
    write_mp4(clip.frames, tmp_path / "clip.mp4")
    program, *words = documented()
    assert program == "holitom"
    with Server([sys.executable, "-m", program, *words], tmp_path / "log.txt", environment={}) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        data = base64.b64encode((tmp_path / "clip.mp4").read_bytes()).decode()
        answer = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}},
                        {"type": "text", "text": clip.questions[0].text},
                    ],
                }
            ],
            max_tokens=8,
        )
    assert answer.choices[0].message.content
