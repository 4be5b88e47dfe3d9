"""Families with a processor of their own get the frames, and where they come from, as they were sampled."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoints import build_qwen_vl_files, build_tokenizer
from transformers import Qwen2Config, Qwen3VLConfig, Qwen3VLModel

from holitom.video import Clip, FrameRate, Preprocessor, user_turn


@pytest.fixture(scope="module", params=[2, 3], ids=["qwen2_5_vl", "qwen3_vl"])
def preprocessor(request, tmp_path_factory):
    return Preprocessor.from_pretrained(build_qwen_vl_files(tmp_path_factory.mktemp("qwen"), request.param))


@pytest.fixture
def clip():
    frames = np.random.default_rng(0).integers(0, 256, (4, 90, 122, 3), dtype=np.uint8)
    return Clip(frames, np.array([0, 30, 60, 90]), np.array([0.0, 1.0, 2.0, 3.0]), 30.0, 120, 4.0, "film.mp4")


def test_inputs_equal_those_of_the_processor_called_by_hand(preprocessor, clip):
    conversation = [user_turn("Where?", clip)]
    ours = preprocessor.batch([conversation])
    theirs = preprocessor.processor(
        text=["<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Where?<|im_end|>\n<|im_start|>assistant\n"],
        videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2)],
        video_metadata=[{"fps": 30.0, "total_num_frames": 120, "frames_indices": [0, 30, 60, 90]}],
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(value)), name


def test_batches_are_padded_on_the_left_and_images_go_beside_videos(preprocessor, clip):
    picture = Image.fromarray(clip.frames[0])
    inputs = preprocessor.batch([[user_turn("Where?", clip, picture)], [user_turn("Yes?")]])
    assert inputs["input_ids"].shape[0] == 2
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]
    assert inputs["attention_mask"][1, 0] == 0
    assert inputs["image_grid_thw"].shape == inputs["video_grid_thw"].shape == (1, 3)


def test_the_seconds_of_the_sampled_frames_reach_the_prompt(tmp_path, clip):
    preprocessor = Preprocessor.from_pretrained(build_qwen_vl_files(tmp_path, 3))
    text = preprocessor.tokenizer.decode(preprocessor("Where?", clip)["input_ids"][0])
    assert re.findall(r"<([\d.]+) seconds>", text) == ["0.5", "2.5"]  # the middles of frames 0 and 30, 60 and 90


def test_the_family_and_its_frames_are_known(preprocessor):
    assert preprocessor.model_type in {"qwen2_5_vl", "qwen3_vl"}
    assert preprocessor.frames == FrameRate(fps=2, least=4, most=768)
    assert preprocessor.tokenizer.decode(preprocessor.tokenizer("é?")["input_ids"]) == "é?"


def test_a_model_of_text_alone_is_refused(tmp_path):
    Qwen2Config().save_pretrained(tmp_path)
    build_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"\(qwen2\) takes no videos: give a video model"):
        Preprocessor.from_pretrained(tmp_path)


def test_the_model_takes_it(tmp_path, clip):
    preprocessor = Preprocessor.from_pretrained(build_qwen_vl_files(tmp_path, 3))
    inputs = preprocessor("Where?", clip)
    layout = {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen3VLConfig(
        vision_config={**layout, "depth": 2, "deepstack_visual_indexes": [0]},
        text_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": len(preprocessor.tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
        },
        **{
            f"{kind}_token_id": preprocessor.tokenizer.convert_tokens_to_ids(f"<|{name}|>")
            for kind, name in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )
    hidden = Qwen3VLModel(config).eval()(**inputs).last_hidden_state
    assert hidden.shape == (*inputs["input_ids"].shape, 32)
