"""Inputs for LLaVA-OneVision equal those of its processor in transformers, and need no torchvision."""

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media import write_video
from PIL import Image
from tiny_checkpoints import CHAT_TEMPLATE, build_llava_onevision, build_qwen_vl_files
from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

from holitom.video import Clip, Preprocessor, model_turn, open_video, read_video, to_device, user_turn
from holitom.video.pixels import PixelRecipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_llava_onevision(tmp_path_factory.mktemp("llava"), sharpen=20.0)


@pytest.fixture(scope="module")
def preprocessor(checkpoint):
    return Preprocessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def processor(checkpoint):
    return AutoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def pillow_processor(checkpoint):
    """The processor as transformers loads it where torchvision is not installed."""
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.image_processor = LlavaOnevisionImageProcessorPil.from_pretrained(checkpoint)
    return processor


def clip(frames=4, height=90, width=122, seed=0):
    return Clip.from_frames(np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8))


def image(height, width, seed=0):
    return Image.fromarray(clip(1, height, width, seed).frames[0])


def by_transformers(processor, *conversations):
    """The same conversations through the processor of transformers, with arrays for clips."""
    plain = [
        [
            {
                **message,
                "content": [
                    {**part, "video": part["video"].frames} if part["type"] == "video" else part
                    for part in message["content"]
                ],
            }
            for message in conversation
        ]
        for conversation in conversations
    ]
    return processor.apply_chat_template(
        plain,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name


class TestPixels:
    @settings(max_examples=40, deadline=None)
    @given(
        frames=st.integers(1, 3),
        height=st.integers(5, 130),
        width=st.integers(5, 130),
        size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
        resample=st.sampled_from([2, 3]),
    )
    def test_equal_to_the_bit_for_any_size(self, frames, height, width, size, resample):
        config = {"size": {"height": size[0], "width": size[1]}, "resample": resample}
        given_clip = clip(frames, height, width, seed=height)
        theirs = LlavaOnevisionVideoProcessor(**config)([given_clip.frames], return_tensors="pt")["pixel_values_videos"]
        assert torch.equal(PixelRecipe.from_config(config)(given_clip.frames), theirs[0])

    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5], "rescale_factor": 0.00392156862745098},
            {"do_normalize": False},
            {"do_rescale": False},
            {"do_resize": False},
            {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]},
        ],
    )
    def test_equal_to_the_bit_for_any_setting(self, config):
        given_clip = clip(2, 60, 384)
        theirs = LlavaOnevisionVideoProcessor(**config)([given_clip.frames], return_tensors="pt")["pixel_values_videos"]
        assert torch.equal(PixelRecipe.from_config(config)(given_clip.frames), theirs[0])

    def test_frames_are_left_as_they_were(self):
        given_clip = clip(2, 56, 56)
        before = given_clip.frames.copy()
        PixelRecipe(size=(56, 56))(given_clip.frames)
        assert np.array_equal(given_clip.frames, before)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"size": {"shortest_edge": 384}}, r'size must be \{"height": ..., "width": ...\}'),
            ({"resample": 1}, "resample must be 2 .bilinear. or 3 .bicubic., got 1"),
            ({"do_center_crop": True}, "do_center_crop is not supported"),
            ({"image_std": [0.5, 0.0, 0.5]}, "std must not be 0"),
            ({"image_mean": [0.5]}, "mean must have one value for each of 3 channels"),
            ({"size": {"height": 0, "width": 5}}, "size must be .height, width. of at least 1 pixel"),
        ],
    )
    def test_settings_that_are_not_understood_are_named(self, config, message):
        with pytest.raises(ValueError, match=message):
            PixelRecipe.from_config(config)


class TestPrompts:
    def test_one_question_about_one_video(self, preprocessor, processor):
        given_clip = clip()
        ours = preprocessor("What happens here?", given_clip)
        assert_same(ours, by_transformers(processor, [user_turn("What happens here?", given_clip)]))
        assert ours["pixel_values_videos"].shape == (1, 4, 3, 56, 56)
        assert ours["pixel_values_videos"].dtype == torch.float32

    def test_several_videos_in_one_prompt(self, preprocessor, processor):
        media = [clip(seed=1), clip(height=30, seed=2)]
        assert_same(
            preprocessor("Which is longer?", *media),
            by_transformers(processor, [user_turn("Which is longer?", *media)]),
        )

    def test_a_batch_of_unequal_prompts_is_padded_on_the_left(self, preprocessor, processor):
        conversations = [
            [user_turn("A question of some length about this video?", clip(seed=1))],
            [user_turn("Short?", clip(seed=2), clip(seed=3))],
            [user_turn("No video at all.")],
        ]
        ours = preprocessor.batch(conversations)
        assert_same(ours, by_transformers(processor, *conversations))
        assert ours["attention_mask"][2, 0] == 0
        assert ours["attention_mask"][:, -1].tolist() == [1, 1, 1]
        for row, conversation in enumerate(conversations):
            alone = preprocessor.batch([conversation])["input_ids"][0]
            assert torch.equal(ours["input_ids"][row, -len(alone) :], alone)

    def test_text_alone(self, preprocessor, processor):
        ours = preprocessor("Hello?")
        assert_same(ours, by_transformers(processor, [user_turn("Hello?")]))
        assert set(ours) == {"input_ids", "attention_mask"}

    def test_several_turns(self, preprocessor, processor):
        conversation = [user_turn("What?", clip()), model_turn("A cat."), user_turn("Where?")]
        assert_same(preprocessor.batch([conversation]), by_transformers(processor, conversation))

    def test_an_answer_that_is_begun_goes_on(self, preprocessor):
        conversation = [user_turn("What?", clip()), model_turn("A")]
        before = [dict(message) for message in conversation]
        text = preprocessor.tokenizer.decode(preprocessor.batch([conversation])["input_ids"][0])
        assert text.endswith("What?<|im_end|><|im_start|>assistant \nA")
        assert conversation == before

    def test_a_message_of_plain_text(self, preprocessor):
        plain = [{"role": "user", "content": "Hello?"}]
        assert torch.equal(preprocessor.batch([plain])["input_ids"], preprocessor("Hello?")["input_ids"])

    @pytest.mark.parametrize("sizes", [[(90, 122)], [(200, 60)], [(40, 40), (90, 30)]])
    @pytest.mark.parametrize("with_video", [False, True])
    def test_images_beside_videos(self, sizes, with_video, preprocessor, processor, pillow_processor):
        pictures = [image(*size, seed) for seed, size in enumerate(sizes)]
        conversations = [
            [user_turn("One?", *pictures, *([clip()] if with_video else []))],
            [user_turn("Two?", pictures[0])],
            [user_turn("None?")],
        ]
        ours = preprocessor.batch(conversations)
        by_torchvision = by_transformers(processor, *conversations)
        by_pillow = by_transformers(pillow_processor, *conversations)
        assert_same(ours, by_pillow)
        # Pillow and torch round resized bytes differently now and then: a byte is 2/255 after normalising.
        assert (ours["pixel_values"] - by_torchvision.pop("pixel_values")).abs().mean() < 0.5 * 2 / 255
        assert_same({name: value for name, value in ours.items() if name != "pixel_values"}, by_torchvision)

    def test_the_count_at_full_size(self, tmp_path):
        path = build_llava_onevision(tmp_path, image_size=384, patch_size=14, weights=False)
        full = Preprocessor.from_pretrained(path)
        assert full.video_tokens(32) == 32 * 196 + 1
        ids = full("What?", clip(32, 20, 20))["input_ids"]
        assert (ids == full.tokenizer.convert_tokens_to_ids("<video>")).sum() == 6273

    @settings(max_examples=100, deadline=None)
    @given(height=st.integers(20, 1500), width=st.integers(20, 1500))
    def test_tokens_of_an_image_equal_those_of_transformers(self, processor, preprocessor, height, width):
        ours = preprocessor._image_tokens([Image.new("1", (width, height))])
        assert ours == [processor._get_number_of_features(height, width, 56, 56)]

    def test_the_model_takes_it(self, checkpoint, preprocessor, tmp_path):
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint)
        film = read_video(write_video(tmp_path / "film.mp4", 20), 6)
        inputs = preprocessor.batch(
            [[user_turn("What?", film, image(30, 40))], [user_turn("And in this one, then?", film)]]
        )
        ids = model.generate(**to_device(inputs, model.device, model.dtype), max_new_tokens=3)
        answer = preprocessor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])
        assert isinstance(answer, str)
        assert ids.shape == (2, inputs["input_ids"].shape[1] + 3)

    @pytest.mark.parametrize("name", ["film.mp4", "turned.mp4", "film.gif", "one.png"])
    def test_frames_made_small_while_they_are_read_give_the_same_inputs(self, name, preprocessor, tmp_path):
        path = tmp_path / name
        if name.endswith(".mp4"):
            write_video(path, 20, height=120, width=200, rotation=90 if name == "turned.mp4" else None)
        else:
            image(120, 200).save(path, save_all=name.endswith("gif"), append_images=[image(120, 200, 1)] * 2)
        whole, small = read_video(path, 4), read_video(path, 4, size=preprocessor.shrink)
        assert small.frames.shape[1:] == (56, 56, 3)
        assert_same(preprocessor("What?", small), preprocessor("What?", whole))
        [streamed] = open_video(path, frames=4, size=preprocessor.shrink).chunks(4)
        assert np.array_equal(streamed.frames, small.frames)

    def test_to_device_casts_pixels_alone(self, preprocessor):
        moved = to_device(preprocessor("What?", clip()), "cpu", torch.bfloat16)
        assert moved["pixel_values_videos"].dtype == torch.bfloat16
        assert moved["input_ids"].dtype == torch.int64

    def test_to_device_leaves_seconds_as_they_are(self):
        """bfloat16 would move the positions of a long video by whole seconds."""
        given = {"pixel_values_videos": torch.rand(8, 4), "second_per_grid_ts": torch.tensor([1.003])}
        moved = to_device(given, "cpu", torch.bfloat16)
        assert moved["pixel_values_videos"].dtype == torch.bfloat16
        assert torch.equal(moved["second_per_grid_ts"], given["second_per_grid_ts"])


class TestFiles:
    def test_the_nested_layout_of_transformers_5(self, processor, preprocessor, tmp_path, checkpoint):
        processor.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
        assert "video_processor" in json.loads((tmp_path / "processor_config.json").read_text())
        again = Preprocessor.from_pretrained(tmp_path)
        assert again.recipe == preprocessor.recipe
        given_clip = clip()
        for name, value in preprocessor("What?", given_clip, image(30, 90)).items():
            assert torch.equal(value, again("What?", given_clip, image(30, 90))[name])

    @pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "processor_config.json"])
    def test_the_template_wherever_it_is(self, place, preprocessor, tmp_path):
        path = build_llava_onevision(tmp_path, weights=False)
        (path / "chat_template.json").unlink()
        if place == "chat_template.jinja":
            (path / place).write_text(CHAT_TEMPLATE)
        else:
            edit(path / place, chat_template=CHAT_TEMPLATE)
        again = Preprocessor.from_pretrained(path)
        assert torch.equal(again("What?", clip())["input_ids"], preprocessor("What?", clip())["input_ids"])

    def test_patches_from_the_config_where_the_processor_does_not_say(self, tmp_path):
        path = build_llava_onevision(tmp_path, weights=False)
        edit(path / "processor_config.json", num_image_tokens=None)
        assert Preprocessor.from_pretrained(path).video_tokens(2) == 2 * 16 + 1

    def test_the_frames_that_the_checkpoint_asks_for(self, preprocessor, tmp_path):
        assert preprocessor.frames == 32
        path = build_llava_onevision(tmp_path, weights=False)
        edit(path / "video_preprocessor_config.json", num_frames=8)
        assert Preprocessor.from_pretrained(path).frames == 8

    def test_no_template_is_an_error(self, tmp_path):
        path = build_llava_onevision(tmp_path, weights=False)
        (path / "chat_template.json").unlink()
        with pytest.raises(ValueError, match=r"has no chat template: add chat_template.jinja"):
            Preprocessor.from_pretrained(path)

    def test_a_folder_without_a_checkpoint_is_an_error(self, tmp_path):
        with pytest.raises((ValueError, OSError), match=r"config.json"):
            Preprocessor.from_pretrained(tmp_path)

    def test_broken_json_is_an_error(self, tmp_path):
        path = build_llava_onevision(tmp_path, weights=False)
        (path / "processor_config.json").write_text("{")
        with pytest.raises(ValueError, match=r"processor_config.json of .* is not valid JSON"):
            Preprocessor.from_pretrained(path)

    def test_another_feature_strategy_is_an_error(self, tmp_path):
        path = build_llava_onevision(tmp_path, weights=False)
        edit(path / "processor_config.json", vision_feature_select_strategy="default")
        with pytest.raises(ValueError, match="vision_feature_select_strategy must be full"):
            Preprocessor.from_pretrained(path)


def edit(path: Path, **values):
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


class TestErrors:
    def test_a_placeholder_in_the_question(self, preprocessor):
        with pytest.raises(ValueError, match="the text holds <video>, which stands for media in a prompt: rephrase it"):
            preprocessor("What is a <video>?", clip())

    def test_videos_of_unequal_length_in_one_batch(self, preprocessor):
        with pytest.raises(
            ValueError, match=r"same number of frames for llava_onevision, got \[3, 4\]: read them with frames=3"
        ):
            preprocessor("Which?", clip(4), clip(3))

    @pytest.mark.parametrize("media", ["film.mp4", np.zeros((2, 8, 8, 3), np.uint8)])
    def test_media_of_another_kind(self, media, preprocessor):
        with pytest.raises(
            TypeError, match=r"media must be clips or PIL images, got \w+: read a video with holitom.video.read_video"
        ):
            preprocessor("What?", media)

    def test_a_question_that_is_no_text(self, preprocessor):
        with pytest.raises(TypeError, match="question must be a str, got Clip"):
            preprocessor(clip())

    @pytest.mark.parametrize(
        ("conversation", "error", "message"),
        [
            (["hello"], TypeError, "a message must be a mapping with role and content, got 'hello'"),
            ([{"role": "user"}], TypeError, "a message must be a mapping with role and content"),
            (
                [{"role": "user", "content": [{"type": "audio"}]}],
                ValueError,
                "of type text, video or image, got 'audio'",
            ),
            (
                [{"role": "user", "content": [{"type": "video", "video": Image.new("L", (4, 4))}]}],
                TypeError,
                "a part of type video holds a Image",
            ),
        ],
    )
    def test_messages_that_are_none(self, conversation, error, message, preprocessor):
        with pytest.raises(error, match=message):
            preprocessor.batch([conversation])

    def test_no_conversations(self, preprocessor):
        with pytest.raises(ValueError, match="conversations must not be empty"):
            preprocessor.batch([])

    def test_a_template_that_leaves_videos_out(self, tmp_path):
        path = build_llava_onevision(tmp_path, weights=False)
        edit(path / "chat_template.json", chat_template="{% for m in messages %}{{ m['role'] }}{% endfor %}")
        with pytest.raises(
            ValueError, match="makes 0 <video> of 1 in the conversation: it does not support these media"
        ):
            Preprocessor.from_pretrained(path)("What?", clip())


@pytest.fixture(scope="module")
def without_torchvision(tmp_path_factory):
    """The installed packages but torchvision, as a folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("packages")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if not entry.name.startswith(("torchvision", "__pycache__")) and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


def run_without_torchvision(packages, script, *arguments):
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(packages)])
    return subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_from_file_to_answer_without_torchvision(without_torchvision, checkpoint, preprocessor, tmp_path):
    """And of another family, which needs it, what to install."""
    film, other = write_video(tmp_path / "film.mp4", 20), build_qwen_vl_files(tmp_path / "qwen", 3)
    script = """
        import importlib.util, sys
        assert importlib.util.find_spec("torchvision") is None
        from PIL import Image
        from transformers import LlavaOnevisionForConditionalGeneration
        from holitom.video import Preprocessor, read_video
        preprocessor = Preprocessor.from_pretrained(sys.argv[1])
        inputs = preprocessor("What?", read_video(sys.argv[2], 4), Image.new("RGB", (90, 30)))
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(sys.argv[1])
        print(inputs["input_ids"].shape[1], model.generate(**inputs, max_new_tokens=2).shape[1])
        Preprocessor.from_pretrained(sys.argv[3])
    """
    result = run_without_torchvision(without_torchvision, script, checkpoint, film, other)
    length = preprocessor("What?", read_video(film, 4), Image.new("RGB", (90, 30)))["input_ids"].shape[1]
    assert result.stdout.split() == [str(length), str(length + 2)], result.stderr
    assert result.returncode == 1
    assert "ImportError: the processor of qwen3_vl cannot be loaded" in result.stderr
    assert "and none is installed. Install it with `pip install" in result.stderr


def test_a_torchvision_that_does_not_fit_is_not_missed_and_named_where_it_is_needed(checkpoint, tmp_path):
    """One process asks the model, asks for a family that needs torchvision, and measures a preset."""
    packages = tmp_path / "packages"
    (packages / "torchvision").mkdir(parents=True)
    (packages / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms is missing')")
    film, other = write_video(tmp_path / "film.mp4", 20), build_qwen_vl_files(tmp_path / "qwen", 3)
    script = """
        import sys
        from PIL import Image
        from holitom.cli import main
        from holitom.pipeline import Pipeline
        from holitom.video import Preprocessor, read_video
        pipeline = Pipeline.from_pretrained(sys.argv[1])
        inputs = pipeline.preprocessor("What?", read_video(sys.argv[2], 4), Image.new("RGB", (90, 30)))
        print(inputs["pixel_values"].ndim, pipeline.ask(sys.argv[2], "What?", max_new_tokens=2).tokens)
        try:
            Preprocessor.from_pretrained(sys.argv[3])
        except ImportError as error:
            print(error, file=sys.stderr)
        sys.argv = ["holitom", "bench", "--preset", "tiny", "--device", "cpu", *sys.argv[4:]]
        main()
    """
    few = ("--frames", 2, "--answer-tokens", 1, "--repeats", 1, "--warmup", 0, "--json")
    path = os.pathsep.join([str(packages), str(Path(__file__).parents[1])])
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, (checkpoint, film, other, *few))],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    asked, measured = result.stdout.split("\n", 1)
    assert asked == "5 2"
    assert f"built for the installed torch {torch.__version__}, and the installed one was built for" in result.stderr
    assert "pip install --force-reinstall --no-deps torchvision" in result.stderr
    assert json.loads(measured)["results"]["holitom"]["seconds"]["time to first token"]["median"] > 0
