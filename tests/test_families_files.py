"""From an encoded video file through each family's own processor and chat template to an answer."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, IMAGE, VIDEO, build
from family_processors import VOCABULARY, processor
from media import write_video
from transformers.video_utils import VideoMetadata

from holitom import HoliTom
from holitom.video import read_video

FRAMES = 8


@pytest.mark.parametrize("name", FAMILIES)
def test_a_question_about_a_file(name, tmp_path):
    clip = read_video(write_video(tmp_path / "clip.mp4", 40), frames=FRAMES)
    reader = processor(name, tmp_path / "processor")
    said = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}]}]
    text = reader.apply_chat_template(said, add_generation_prompt=True)
    known = VideoMetadata(
        total_num_frames=clip.total_frames,
        fps=clip.fps,
        duration=clip.duration,
        frames_indices=clip.indexes.tolist(),
    )
    inputs = reader(
        text=[text],
        videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2)],
        video_metadata=[known],
        do_sample_frames=False,
        return_tensors="pt",
    )
    model = build(name, vocab_size=VOCABULARY)
    plain = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    with HoliTom(retention=1.0, layer=None)(model) as session:
        assert torch.equal(model.generate(**inputs, max_new_tokens=6, do_sample=False), plain)
        [video] = session.videos
    shown = int(((inputs["input_ids"] == VIDEO) | (inputs["input_ids"] == IMAGE)).sum())
    assert video.tokens_by_stage[0] == shown
    assert video.frames in (FRAMES, FRAMES // 2)
    with HoliTom(retention=0.2, layer=None)(model) as session:
        out = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        [video] = session.videos
    assert video.merge.outputs < 0.6 * video.merge.inputs
    assert session.prompts[0].by_layer[0] == inputs["input_ids"].shape[1] - video.merge.inputs + video.merge.outputs
    answer = reader.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert isinstance(answer, str)
