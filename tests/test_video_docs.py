"""The examples of docs/video.md run as they are printed, on a film and a checkpoint made for them."""

import re
from pathlib import Path

from media import write_video
from tiny_checkpoints import build_llava_onevision
from transformers import LlavaOnevisionForConditionalGeneration

DOCS = Path(__file__).parents[1] / "docs" / "video.md"


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_llava_onevision("llava-hf/llava-onevision-qwen2-7b-ov-hf")  # a folder of that name is found before the hub
    write_video(tmp_path / "film.mp4", 40)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    exec(blocks[0], names)
    assert names["inputs"]["pixel_values_videos"].shape == (1, 32, 3, 56, 56)
    model = LlavaOnevisionForConditionalGeneration.from_pretrained("llava-hf/llava-onevision-qwen2-7b-ov-hf")
    ids = model.generate(**names["to_device"](names["inputs"], model.device, model.dtype), max_new_tokens=2)
    start = names["inputs"]["input_ids"].shape[1]
    assert isinstance(names["preprocessor"].tokenizer.decode(ids[0, start:], skip_special_tokens=True), str)
    exec(blocks[1], names)
    assert names["inputs"]["pixel_values_videos"].shape[0] == 3
    assert names["inputs"]["input_ids"].shape[0] == 3
