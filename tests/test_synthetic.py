"""The generator of clips: seeds, contents, questions and files."""

import hashlib
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from holitom.cli.clips import app
from holitom.video import read_video
from holitom.video.synthetic import FRAMES, SIZE, SPLITS, TASKS, Question, block, suite
from holitom.video.synthetic.files import write_mp4
from holitom.video.synthetic.scene import COLOURS, MAX_COUNT, SHAPES, STILL
from holitom.video.synthetic.suite import BLOCK, seed_of

TEST_SET = "5fd19a6d5aa9f4daf85d88a430e19b7f17520caa36d717ee192d60271d3db5e3"


@pytest.fixture(scope="module")
def drawn():
    return [block("val", number, with_owner=True) for number in range(6)]


def test_test_set_is_the_published_one():
    digest = hashlib.sha256()
    for clip in suite("test", 48):
        digest.update(clip.frames.tobytes())
        digest.update(repr([(q.task, q.text, q.answer, q.choices) for q in clip.questions]).encode())
    assert digest.hexdigest() == TEST_SET


def test_same_seed_same_clips_and_longer_suites_begin_alike():
    short, long = suite("val", 3, seed=5), suite("val", 20, seed=5)
    for a, b in zip(short, long, strict=False):
        assert a.name == b.name
        assert a.questions == b.questions
        np.testing.assert_array_equal(a.frames, b.frames)
    assert not np.array_equal(short[0].frames, suite("val", 1, seed=6)[0].frames)


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_splits_never_share_a_seed_or_a_clip(seeds):
    keys = [
        (sequence.entropy, *sequence.spawn_key)
        for split in SPLITS
        for seed in range(20)
        for sequence in (seed_of(split, seed, number) for number in range(50))
    ]
    assert len(set(keys)) == len(keys)
    states = {
        seed_of(split, seed, n).generate_state(4).tobytes() for split in SPLITS for seed in (0, 1) for n in range(200)
    }
    assert len(states) == len(SPLITS) * 2 * 200
    clips = [
        clip.tobytes()
        for split in SPLITS
        for seed in range(seeds)
        for number in (0, 1)
        for clip in block(split, number, seed).frames
    ]
    assert len(set(clips)) == len(clips)


def test_clips_are_what_the_model_takes():
    for clip in suite("val", 5):
        assert clip.frames.shape == (FRAMES, SIZE, SIZE, 3)
        assert clip.frames.dtype == np.uint8
        assert {q.task for q in clip.questions} <= set(TASKS)
        assert len({q.task for q in clip.questions}) == len(clip.questions) >= 5


def test_objects_stay_in_the_picture_and_show_their_colours(drawn):
    for part in drawn:
        scenes = part.scenes
        inside = (scenes.centre - scenes.radius[..., None, None] >= -0.5) & (
            scenes.centre + scenes.radius[..., None, None] <= SIZE - 0.5
        )
        assert inside.all(-1)[scenes.visible].all()
        for b in range(BLOCK):
            for slot in range(scenes.count[b]):
                pixels = part.frames[b, -1][part.owner[b, -1] == slot].astype(float)
                if len(pixels) < 20:  # covered by another object
                    continue
                red, green, blue = np.median(pixels, 0)
                highs = {"red": red, "green": green, "blue": blue, "yellow": min(red, green)}
                highs |= {"purple": min(red, blue) - 0.8 * green, "cyan": min(green, blue)}
                name = COLOURS[scenes.colour[b, slot]]
                assert highs[name] > 60, (name, red, green, blue)


def test_nothing_is_pixel_equal_from_frame_to_frame(drawn):
    for part in drawn:
        assert (np.abs(np.diff(part.frames.astype(int), axis=1)).mean((2, 3, 4)) > 0.5).all()


def test_features_of_the_suite_occur(drawn):
    def share(name, test):
        return np.mean([test(part.scenes) for part in drawn])

    assert 0.6 < share("flash", lambda s: s.flashes.mean()) < 0.95
    assert 0.3 < share("cuts", lambda s: (s.scene[:, -1] > 0).mean()) < 0.7
    assert 0.1 < share("pan", lambda s: (np.abs(s.pan).max((1, 2)) > 0).mean()) < 0.5
    assert 0.2 < share("drift", lambda s: (np.ptp(s.brightness, axis=1) > 0).mean()) < 0.6
    for part in drawn:
        flashing = part.scenes.visible[part.scenes.flashes, MAX_COUNT].sum(-1)
        assert set(flashing.tolist()) <= {1, 2}


def test_area_does_not_tell_the_count():
    """The share of covered cells explains less than half of the count: sizes vary on purpose."""
    counts, areas = [], []
    for number in range(24):
        scenes = block("val", number).scenes
        lasting = np.arange(MAX_COUNT) < scenes.count[:, None]
        counts.append(scenes.count)
        areas.append((scenes.radius[:, :MAX_COUNT] ** 2 * lasting).sum(1))
    count, area = np.concatenate(counts), np.concatenate(areas)
    scale = area / count  # mean size of an object
    assert abs(np.corrcoef(count, scale)[0, 1]) < 0.15
    assert scale.std() / scale.mean() > 0.2


def test_answers_follow_from_the_scene(drawn):
    """Each question is answered anew from the scene by an independent reading of its text."""
    for part in drawn:
        scenes = part.scenes
        for b in range(BLOCK):
            slots = range(scenes.count[b])
            by_name = {SHAPES[scenes.shape[b, s]]: s for s in slots}
            by_name |= {f"{COLOURS[scenes.colour[b, s]]} shape": s for s in slots}
            for q in part.questions[b]:
                named = [slot for name, slot in by_name.items() if f"the {name}" in q.text]
                path = scenes.centre[b, named[0]] if named else None
                if q.task in ("direction", "side"):
                    delta = path[-1] - path[scenes.appears[b, named[0]]]
                    axis = int(abs(delta[1]) > abs(delta[0]))
                    if q.task == "direction":
                        words = ("left", "right") if axis == 0 else ("up", "down")
                    else:
                        words = ("left", "right") if axis == 0 else ("above", "below")
                    assert q.answer == words[int(delta[axis] > 0)]
                elif q.task in ("end_place", "start_place"):
                    x, y = path[-1 if q.task == "end_place" else scenes.appears[b, named[0]]]
                    assert q.answer == f"{'bottom' if y > 55.5 else 'top'}-{'right' if x > 55.5 else 'left'}"
                elif q.task == "count":
                    assert q.answer == ("one", "two", "three", "four", "five")[scenes.visible[b, :, -1].sum() - 1]
                elif q.task == "mover":
                    assert (scenes.heading[b, : scenes.count[b]] != STILL).sum() == 1
                elif q.task == "flash_shape":
                    assert q.answer == SHAPES[scenes.shape[b, MAX_COUNT]]


def test_a_question_needs_its_answer_among_the_choices():
    with pytest.raises(ValueError, match="not among the choices"):
        Question("colour", "What colour is the ring?", "pink", COLOURS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("dev", 1), "train, val, test"), (("val", 0), "at least 1"), (("val", 1, -1), "0 or more")],
)
def test_bad_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        suite(*arguments)


def test_mp4_keeps_the_pictures(tmp_path):
    clip = suite("test", 1)[0]
    write_mp4(clip.frames, tmp_path / "clip.mp4")
    read = read_video(tmp_path / "clip.mp4", frames=FRAMES)
    assert read.frames.shape == clip.frames.shape
    error = np.abs(read.frames.astype(int) - clip.frames)
    assert error.mean() < 4.0
    with pytest.raises(ValueError, match="even height"):
        write_mp4(clip.frames[:, :111], tmp_path / "odd.mp4")


def test_clips_make_writes_videos_and_questions(tmp_path):
    result = CliRunner().invoke(app, ["make", "--out", str(tmp_path / "clips"), "-n", "2", "--seed", "3"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "clips" / "questions.jsonl").read_text().splitlines()]
    expected = [(f"{c.name}.mp4", q.task, q.text, q.answer) for c in suite("test", 2, seed=3) for q in c.questions]
    assert [(r["video"], r["task"], r["question"], r["answer"]) for r in rows] == expected
    assert all(r["answer"] in r["choices"] for r in rows)
    assert sorted(p.name for p in (tmp_path / "clips").glob("*.mp4")) == sorted({r["video"] for r in rows})
    assert CliRunner().invoke(app, ["make", "--out", str(tmp_path), "--split", "dev"]).exit_code != 0
