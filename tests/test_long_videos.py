"""Long videos: windows, budgets, and the same answer as the ordinary path where there is one window."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from families import FAMILIES, build
from hypothesis import given
from hypothesis import strategies as st
from media import write_video
from tiny_checkpoints import build_llava_onevision

from holitom import HoliTom, Merge, Method, VideoTokens, exact_count
from holitom.long_video import Budget, Reading, Windows, compress_video
from holitom.long_video.compress import joined
from holitom.long_video.memory import _malloc_trim, trim_heap
from holitom.methods.registry import parse
from holitom.methods.segmenting import Segmenting
from holitom.ops import segment
from holitom.pipeline import Pipeline
from holitom.video import Clip, VideoError, open_video


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return Pipeline.from_pretrained(
        build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0), device="cpu"
    )


def scenes(frames=48, cuts=(13, 30), seed=0):
    """(T, 56, 56, 3) frames of scenes in which a moving square covers a part of a still picture."""
    noise = np.random.default_rng(seed)
    film, still = [], noise.integers(0, 256, (56, 56, 3), dtype=np.uint8)
    for number in range(frames):
        if number in cuts:
            still = noise.integers(0, 256, (56, 56, 3), dtype=np.uint8)
        frame = still.copy()
        at = (5 * number) % 40
        frame[at : at + 16, 8:24] = noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        film.append(frame)
    return np.stack(film)


@pytest.fixture(scope="module")
def clip():
    return Clip.from_frames(scenes())


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("films") / "film.mp4", 240)


# one window: the ordinary path ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("share", [0.05, 0.25, 0.9, 1.0])
def test_a_video_of_one_window_gives_the_tokens_of_the_ordinary_path(pipeline, clip, layer, share):
    count = max(1, round(share * len(clip) * 16))
    plain = HoliTom(layer=layer, retention=count / (len(clip) * 16), exact=True)
    options = {"max_new_tokens": 12}
    want = pipeline.ask(clip, "What happens?", plain, **options)
    got = pipeline.ask(clip, "What happens?", HoliTom(layer=layer), window=1000, tokens=count + 1, **options)
    assert got.text == want.text
    assert got.tokens == want.tokens
    assert got.summary.as_dict() == want.summary.as_dict()
    assert got.summary.visual_tokens[1] == count + 1
    assert got.warning is None


@pytest.mark.parametrize(
    "method",
    [
        "holitom",
        "holitom:exact=true",
        "visionzip|fastv:layer=2",
        "vidcom2",
        "evs",
        "spread:positions=compact,change=0.1",
        "evs:change=0.1",
        "fastvid",
        "none",
    ],
)
def test_without_a_budget_one_window_is_the_method_itself(pipeline, film, method):
    chosen = None if method == "none" else parse(method)
    want = pipeline.ask(film, "What?", chosen, frames=20, max_new_tokens=8)
    got = pipeline.ask(film, "What?", chosen, frames=20, window=1000, max_new_tokens=8)
    assert got.text == want.text
    assert got.summary.as_dict() == want.summary.as_dict()


@pytest.mark.parametrize("text", ["spread", "repeatframes|spread"])
def test_windows_have_compact_positions_also_where_a_method_keeps_places(pipeline, film, text):
    method, options = parse(text), {"frames": 20, "max_new_tokens": 8}
    want = pipeline.ask(film, "What?", method.with_positions("compact"), **options)
    got = pipeline.ask(film, "What?", method, window=1000, **options)
    assert got.text == want.text
    assert got.summary.as_dict() == want.summary.as_dict()
    with pytest.raises(ValueError, match=r"positions='original' cannot be kept .* read in windows"):
        pipeline.ask(film, "What?", parse("vcast:positions=original"), window=1000, **options)


@pytest.mark.parametrize("text", ["renewal:layer=0,guard=0|holitom:layer=none", "tome:merged=0.3", "repeatframes|evs"])
def test_a_stage_inside_the_vision_tower_works_behind_windows(pipeline, clip, text):
    method = parse(text)
    with method(pipeline.model) as session, torch.inference_mode():
        want = pipeline.model(**pipeline.preprocessor("What?", clip)).logits
        usual = session.summary()
    video = pipeline.compress(clip, method, Reading(window=1000, batch=1000))
    with method(pipeline.model) as session, torch.inference_mode():
        got = pipeline.model(**video.inputs(session, pipeline.preprocessor, "What?")).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert session.summary().as_dict() == usual.as_dict()
    assert usual.cost.ratios["vision_flops"] < 1


def test_a_method_that_chooses_by_what_it_merged_in_the_tower_is_refused(pipeline, clip):
    with pytest.raises(ValueError, match=r"earlytom chooses tokens by what it merged.*renewal\|holitom"):
        pipeline.compress(clip, parse("earlytom"), Reading(window=10))


def test_batches_of_a_long_video_add_up_to_one_record_of_the_tower(pipeline, clip):
    method = parse("renewal:layer=0,guard=0|holitom:layer=none")
    video = pipeline.compress(clip, method, Reading(window=20, batch=8))
    parts = []
    for first in range(0, 48, 8):
        part = Clip.from_frames(clip.frames[first : first + 8])
        with method(pipeline.model) as session, torch.inference_mode():
            pipeline.model(**pipeline.preprocessor("What?", part))
        parts.append(session.videos[0].tower)
    assert video.tower.frames == 48
    assert video.tower.rows == [sum(counts) for counts in zip(*(part.rows for part in parts), strict=True)]
    assert video.tower.pairs == [sum(counts) for counts in zip(*(part.pairs for part in parts), strict=True)]
    assert video.tower.projected == sum(part.projected or part.frames * len(part.place) for part in parts)
    rows = video.tower.patches.validate()
    assert rows.outputs == sum(part.patches.outputs for part in parts) < 0.9 * rows.inputs
    with method(pipeline.model) as session, torch.inference_mode():
        pipeline.model(**video.inputs(session, pipeline.preprocessor, "What?"))
    assert session.videos[0].provenance.validate().outputs == video.merge.outputs
    assert session.summary().cost.ratios["vision_flops"] < 0.9


@pytest.mark.parametrize("mass", [False, True])
@pytest.mark.parametrize("layer", [2, None])
def test_logits_of_one_window_equal_those_of_the_ordinary_path(pipeline, clip, layer, mass):
    method = HoliTom(retention=0.2, layer=layer, exact=True, mass=mass)
    inputs = pipeline.preprocessor("Why?", clip)
    with method(pipeline.model), torch.inference_mode():
        want = pipeline.model(**inputs).logits
    prefix = pipeline.compress(clip, method, Reading(window=1000))
    with method(pipeline.model) as session, torch.inference_mode():
        got = pipeline.model(**prefix.inputs(session, pipeline.preprocessor, "Why?")).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
        {"use_cache": False},
        {"prompt_lookup_num_tokens": 3},
        {"cache_implementation": "static"},
    ],
)
def test_every_way_to_generate_works_on_a_prefix(pipeline, clip, options):
    method, model, inputs = HoliTom(retention=0.2, layer=2, exact=True), pipeline.model, pipeline.preprocessor
    options = {"max_new_tokens": 6, "do_sample": False, **options}
    plain = inputs("Why?", clip)
    prefix = pipeline.compress(clip, method, Reading(window=1000))
    with method(model) as session, torch.inference_mode():
        want = model.generate(**plain, **options)[:, plain["input_ids"].shape[1] :]
        given = prefix.inputs(session, inputs, "Why?")
        got = model.generate(**given, **options)[:, given["input_ids"].shape[1] :]
    assert torch.equal(got, want)


def test_a_prefix_without_an_inner_stage_needs_no_session_to_be_read(pipeline, clip):
    method, model = HoliTom(retention=0.2, layer=None, exact=True), pipeline.model
    prefix = pipeline.compress(clip, method, Reading(window=9))
    options = {"max_new_tokens": 6, "do_sample": False}
    with method(model) as session, torch.inference_mode():
        want = model.generate(**prefix.inputs(session, pipeline.preprocessor, "Why?"), **options)
        given = prefix.inputs(session, pipeline.preprocessor, "Why?")
    with torch.inference_mode():
        assert torch.equal(model.generate(**given, **options), want)


# several windows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["holitom", "vidcom2", "visionzip", "uniformframes", "fastvid", "holitom|fastv:layer=2"]
)
@pytest.mark.parametrize("tokens", [40, 120, 700])
def test_a_budget_is_met_to_the_token(pipeline, clip, method, tokens):
    prefix = pipeline.compress(clip, parse(method), Reading(window=9, tokens=tokens))
    assert len(prefix.tokens) == tokens
    assert prefix.merge.outputs == sum(window.tokens for window in prefix.windows) == tokens - 1
    assert prefix.merge.inputs == len(clip) * 16
    prefix.merge.validate()
    assert all(window.tokens >= 1 for window in prefix.windows)
    assert [frame for w in prefix.windows for frame in range(w.first, w.last + 1)] == list(range(len(clip)))
    assert all(window.last - window.first < 9 for window in prefix.windows)


def test_each_window_is_merged_as_a_video_of_its_own(pipeline, clip):
    method = HoliTom(layer=None)
    prefix = pipeline.compress(clip, method, Reading(window=9, tokens=120, batch=4))
    whole, at = 119 / (len(clip) * 16), 0
    for window in prefix.windows:
        part = Clip.from_frames(clip.frames[window.first : window.last + 1])
        share = window.tokens / (len(part) * 16)
        alone = HoliTom(layer=None, retention=share, exact=True, similarity=HoliTom(retention=whole).threshold)
        want = pipeline.compress(part, alone, Reading(window=1000))
        torch.testing.assert_close(prefix.tokens[at : at + window.tokens], want.tokens[:-1], atol=1e-4, rtol=1e-4)
        at += window.tokens
    spans = prefix.merge.spans
    assert [frame for first, last in spans for frame in range(first, last + 1)] == list(range(len(clip)))


def test_the_tokens_are_those_that_the_map_makes_of_the_features(pipeline, clip):
    prefix = pipeline.compress(clip, HoliTom(layer=None), Reading(window=7, tokens=100, batch=3))
    with torch.inference_mode():
        pixels = pipeline.preprocessor.pixels(clip)
        rows = pipeline.model.model.get_video_features(**pixels, return_dict=True).pooler_output[0]
    torch.testing.assert_close(prefix.tokens[:-1], prefix.merge.apply(rows[:-1]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prefix.tokens[-1], rows[-1])


@pytest.mark.parametrize("batch", [1, 5, 16, 100])
def test_how_many_frames_are_encoded_at_a_time_does_not_matter(pipeline, clip, batch):
    want = pipeline.compress(clip, HoliTom(), Reading(window=11, tokens=150))
    got = pipeline.compress(clip, HoliTom(), Reading(window=11, tokens=150, batch=batch))
    assert got.windows == want.windows
    assert torch.equal(got.merge.target, want.merge.target)
    torch.testing.assert_close(got.tokens, want.tokens, atol=1e-4, rtol=1e-4)


def test_windows_end_at_scene_cuts_and_static_ones_get_less(pipeline):
    """Half of the film stands still: that needs few tokens, and the other half gets what it leaves."""
    noise = np.random.default_rng(0)
    still = np.repeat(noise.integers(0, 256, (1, 56, 56, 3), dtype=np.uint8), 30, axis=0)
    moving = noise.integers(0, 256, (30, 56, 56, 3), dtype=np.uint8)
    clip = Clip.from_frames(np.concatenate([moving[:12], still[:12], moving[12:], still[12:]]))
    prefix = pipeline.compress(clip, HoliTom(similarity=0.95), Reading(window=14, tokens=300))
    assert 11 in [window.last for window in prefix.windows]
    assert (
        prefix.at_stake
        == 16
        * sum(  # nothing but borders inside the still stretches costs anything
            window.last + 1 in {*range(13, 24), *range(43, 60)} for window in prefix.windows[:-1]
        )
    )
    for window in prefix.windows[:-1]:
        standing = window.first >= 12 and window.last < 24
        share = window.tokens / (window.last - window.first + 1)
        if standing:
            assert share < 300 / 60 / 2


def test_a_prefix_serves_several_questions(pipeline, clip):
    prefix = pipeline.compress(clip, HoliTom(), Reading(window=9, tokens=120))
    first = pipeline.answer(prefix, "What?", max_new_tokens=8)
    other = pipeline.answer(prefix, "Who is it?", max_new_tokens=8)
    again = pipeline.answer(prefix, "What?", max_new_tokens=8)
    assert first.text == again.text
    assert other.summary.prompts[0].tokens != first.summary.prompts[0].tokens
    assert first.summary.visual_tokens[:2] == [len(clip) * 16 + 1, 120]
    assert first.summary.visual_tokens[2] < 120
    assert first.seconds["vision tower"] == prefix.seconds["vision tower"] > 0
    [record] = first.summary.prompts[0].videos
    assert set(record.inner[0].place.tolist()) == {-1, *prefix.merge.anchor.tolist()}


def test_progress_is_told(pipeline, clip):
    told = []
    pipeline.compress(clip, HoliTom(), Reading(window=9, tokens=99, batch=5), progress=lambda *args: told.append(args))
    assert [done for done, _, _ in told] == [*range(5, 48, 5), 48, 48]
    assert {total for _, total, _ in told} == {48}
    assert [kept for _, _, kept in told] == sorted(kept for _, _, kept in told)
    assert told[-1][2] == 98


# unusual films ----------------------------------------------------------------------------------------------------


def test_a_film_with_a_variable_frame_rate(pipeline, tmp_path):
    pts = [*range(0, 1000, 40), *range(3000, 9000, 250), 20_000]
    path = write_video(tmp_path / "film.mkv", len(pts), pts=pts)
    prefix = pipeline.compress(path, HoliTom(), Reading(window=3, tokens=60, fps=2))
    assert prefix.frames == len(open_video(path, fps=2))
    assert len(prefix.tokens) == 60
    assert prefix.times[-1] == pytest.approx(20.0, abs=0.01)
    assert prefix.windows[-1].end == pytest.approx(20.0, abs=0.01)


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 11])
def test_films_shorter_than_a_window_and_a_last_window_of_one_frame(pipeline, frames):
    clip = Clip.from_frames(np.random.default_rng(0).integers(0, 256, (frames, 56, 56, 3), dtype=np.uint8))
    prefix = pipeline.compress(clip, parse("vidcom2"), Reading(window=10, tokens=12))
    assert [window.last - window.first + 1 for window in prefix.windows] == ([frames] if frames <= 10 else [10, 1])
    assert len(prefix.tokens) == 12
    prefix = pipeline.compress(clip, HoliTom(), Reading(window=10, tokens=12))
    assert len(prefix.tokens) == 12
    assert pipeline.answer(prefix, "?", max_new_tokens=2).tokens <= 2


def test_a_budget_beyond_the_video_keeps_it_whole(pipeline):
    clip = Clip.from_frames(scenes(5))
    prefix = pipeline.compress(clip, HoliTom(layer=None), Reading(window=2, tokens=10_000))
    assert prefix.merge.outputs == prefix.merge.inputs == 80
    want = pipeline.ask(clip, "What?", None, max_new_tokens=6)
    assert pipeline.answer(prefix, "What?", max_new_tokens=6).text == want.text


@pytest.mark.parametrize("part", [0.9, 0.7])
def test_a_film_with_a_corrupt_tail_stays_within_its_budget_and_says_so(pipeline, tmp_path, part):
    path = write_video(tmp_path / "film.mp4", 240, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = int(len(data) * part)
    data[start:] = np.random.default_rng(0).bytes(len(data) - start)
    path.write_bytes(data)
    prefix = pipeline.compress(path, HoliTom(), Reading(window=1, tokens=90, fps=10))
    assert 40 < prefix.frames <= 80
    assert len(prefix.tokens) == 90
    assert "damaged" in prefix.warning
    assert pipeline.answer(prefix, "What?", max_new_tokens=2).warning == prefix.warning


def test_a_film_of_which_nothing_decodes_is_an_error(pipeline, tmp_path):
    path = write_video(tmp_path / "film.mp4", 60, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="not one frame of it could be decoded"):
        pipeline.compress(path, HoliTom(), Reading(tokens=50))


# what cannot be done ----------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_explained(pipeline, clip):
    with pytest.raises(
        ValueError, match=r"budget of 5 visual tokens leaves less than one for each of up to 10 windows"
    ):
        pipeline.compress(clip, HoliTom(), Reading(window=8, tokens=6))
    with pytest.raises(ValueError, match="tokens=1 leaves none beside the 1 after a video"):
        pipeline.compress(clip, HoliTom(), Reading(tokens=1))
    with pytest.raises(ValueError, match="framefusion cannot keep a given number of tokens"):
        pipeline.compress(clip, parse("framefusion"), Reading(tokens=100))
    with pytest.raises(ValueError, match=r"budget of 99 tokens is less than the 768 of the video: name a method"):
        pipeline.ask(clip, "?", None, tokens=100)
    with pytest.raises(ValueError, match="give either fps or frames"):
        pipeline.ask(clip, "?", HoliTom(), window=5, fps=1, frames=5)


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"llava_onevision"}))
def test_other_families_are_refused_before_anything_is_decoded(name):
    with pytest.raises(TypeError, match="cannot read a video in windows yet; LlavaOnevisionFor"):
        compress_video(build(name), None, "none.mp4", HoliTom(layer=None))


def test_a_transformers_that_takes_no_encoded_videos_is_refused(pipeline, clip, monkeypatch):
    monkeypatch.setattr(pipeline.model, "forward", lambda input_ids, pixel_values_videos=None: None)
    with pytest.raises(TypeError, match=r"takes no encoded videos.* upgrade it to 5\.18"):
        pipeline.compress(clip, HoliTom())


@dataclass(frozen=True)
class Spread(Method):
    """A method of somebody else, whose count is exact without a switch."""

    name: ClassVar[str] = "spread"
    exact_count: ClassVar[bool] = True
    retention: float = 0.5

    def token_count(self, frames, grid):
        return exact_count(frames, grid, self.retention)

    def merge_video(self, video):
        total, count = video.frames * video.positions, self.token_count(video.frames, video.grid)
        return Merge.keep(torch.arange(count) * total // count, total)


def test_methods_of_other_packages_meet_a_budget_too(pipeline, clip):
    prefix = pipeline.compress(clip, Spread(), Reading(window=9, tokens=101))
    assert len(prefix.tokens) == 101
    assert {window.last - window.first + 1 for window in prefix.windows[:-1]} == {9}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0.0}, r"window is a length in seconds .* got 0\.0"),
        ({"tokens": 0}, "tokens must be at least 1, got 0"),
        ({"fps": None}, "give either fps or frames"),
        ({"fps": -1.0}, r"fps must be above 0, got -1\.0"),
        ({"fps": None, "frames": 0}, "frames must be at least 1, got 0"),
        ({"batch": 0}, "batch is a number of frames"),
    ],
)
def test_settings_check_themselves(arguments, message):
    with pytest.raises(ValueError, match=message):
        Reading(**arguments)


# parts ------------------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_budget_is_never_exceeded_and_used_up(data):
    """Windows of any length between the shortest and the longest, whatever they need."""
    longest, positions = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9))
    shortest, frames = longest // 2 + 1, data.draw(st.integers(1, 80))
    most = max(1, -(-frames // shortest))
    tokens = min(data.draw(st.integers(most, 200)), frames * positions)
    if tokens < most:
        return
    budget, left, given_out = Budget(tokens, frames, positions, shortest), frames, []
    while left > 0:
        last = left <= longest
        length = left if last else data.draw(st.integers(shortest, longest))
        need = data.draw(st.integers(1, length * positions))
        given_out.append(budget.share(length, need, last))
        assert 1 <= given_out[-1] <= length * positions
        left -= length
    assert sum(given_out) <= tokens
    assert sum(given_out) + budget.left == tokens
    if len(given_out) == 1:
        assert given_out == [tokens]


@given(st.integers(1, 30), st.integers(1, 12), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 99))
def test_windows_give_every_frame_once_and_in_order(frames, window, chunks, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, 4, 8, generator=generator).repeat(frames, 1, 1)
    features += 0.8 * torch.randn(frames, 4, 8, generator=generator)
    scores = torch.rand(frames, 4, generator=generator)
    for method in (HoliTom(similarity=0.5), parse("visionzip")):
        windows, found, at, number = Windows(method, window), [], 0, 0
        while at < frames:
            part = slice(at, at + chunks[number % len(chunks)])
            found += windows.push(VideoTokens(features[part], (2, 2), scores=scores[part]))
            assert sum(video.frames for video in windows._held) <= window
            at, number = part.stop, number + 1
        found.append(windows.finish())
        assert torch.equal(torch.cat([video.features for video, _ in found]), features)
        assert torch.equal(torch.cat([video.scores for video, _ in found]), scores)
        assert all(windows.shortest <= video.frames <= window for video, _ in found[:-1])
        assert 1 <= found[-1][0].frames <= window
        for video, redundant in found:
            assert redundant == (
                segment(method.links(video.features)).redundant if isinstance(method, Segmenting) else 0
            )


@pytest.mark.parametrize("more", [700, pytest.param(1400, marks=pytest.mark.slow)])
def test_process_memory_does_not_grow_with_the_film(tmp_path, more):
    """700 frames more are 100 MiB as RGB and 25 MiB as pixel values."""
    checkpoint = build_llava_onevision(tmp_path / "tiny")
    script = textwrap.dedent(
        """
        import resource, sys
        import numpy as np, torch
        sys.path.insert(0, sys.argv[2])
        import torchvision_loads
        from holitom import HoliTom
        from holitom.pipeline import Pipeline
        from holitom.long_video import Reading
        from holitom.video import VideoStream

        def read():
            noise = np.random.default_rng(0)
            for number in range(count):
                if number % 40 == 0:
                    still = noise.integers(0, 256, (224, 224, 3), dtype=np.uint8)
                frame = still.copy()
                frame[:40, :40] = number % 256
                yield number, frame

        pipeline = Pipeline.from_pretrained(sys.argv[1], device="cpu")
        for count in (200, 200 + int(sys.argv[3])):
            numbers = np.arange(count)
            stream = VideoStream(numbers, numbers * 1.0, 1.0, count, float(count), "film", read)
            prefix = pipeline.compress(stream, HoliTom(layer=None), Reading(window=60, tokens=400))
            print(len(prefix.tokens), prefix.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        """
    )
    call = [sys.executable, "-c", script, str(checkpoint), str(Path(__file__).parent), str(more)]
    lines = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    peaks = []
    for line, frames in zip(lines, (200, 200 + more), strict=True):
        tokens, done, peak = line.split()
        assert (int(tokens), int(done)) == (400, frames)
        peaks.append(float(peak))
    assert peaks[1] - peaks[0] < more / 1400 * 30


def test_freed_memory_is_given_back_where_that_is_known_how(monkeypatch):
    trim_heap()
    _malloc_trim.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _malloc_trim() is None
    trim_heap()
    _malloc_trim.cache_clear()


def test_maps_of_consecutive_videos_are_joined():
    merges = [
        Merge(torch.tensor([0, 0, -1]), torch.tensor([0.5, 0.5, 1]), torch.tensor([0]), spans=((0, 2),)),
        Merge(torch.tensor([1, 0]), torch.tensor([1.0, 1.0]), torch.tensor([1, 0]), spans=((0, 0), (1, 1))),
    ]
    both = joined(merges).validate()
    x = torch.randn(5, 3)
    assert torch.equal(both.apply(x), torch.cat([merges[0].apply(x[:3]), merges[1].apply(x[3:])]))
    assert both.anchor.tolist() == [0, 4, 3]
    assert both.spans == ((0, 2), (3, 3), (4, 4))


def test_the_session_is_closed_and_the_model_left_as_it_was(pipeline, clip):
    before = {name: len(module._forward_pre_hooks) for name, module in pipeline.model.named_modules()}
    with pytest.raises(RuntimeError, match="stop here"):
        pipeline.compress(clip, HoliTom(), Reading(window=5, tokens=90), progress=_stop)
    assert before == {name: len(module._forward_pre_hooks) for name, module in pipeline.model.named_modules()}
    assert "get_video_features" not in pipeline.model.model.__dict__


def _stop(*_: int) -> None:
    raise RuntimeError("stop here")
