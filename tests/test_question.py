"""Methods that look at the question: how a session knows it, and where it cannot."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from families import FAMILIES, IMAGE, PAD, VIDEO, batch, model_of, questions, row, words
from family_processors import checkpoint
from media import write_video
from tiny_checkpoints import build_llava_onevision
from typer.testing import CliRunner

from holitom import (
    CDPruner,
    EchoPrune,
    HoliTom,
    Pipeline,
    Session,
    Uncompressed,
    VideoTokens,
    parse,
    question_ids,
    read_video,
)
from holitom.bench import from_pipeline, from_preset, measure
from holitom.bench.presets import build as build_preset
from holitom.bench.workload import WORD
from holitom.cli import app
from holitom.evaluation import Log, evaluate
from holitom.evaluation.calibration import Encoded
from holitom.integrations.vllm import ServingConfig
from holitom.runtime.prefix import hold, resume
from holitom.video import Clip, Preprocessor
from holitom.video.chat import question_of
from holitom.video.synthetic import suite

METHOD = CDPruner(retention=0.3)
METHODS = (METHOD, EchoPrune(retention=0.3))
NAMED = (CDPruner(retention=0.3, relevant="like"), METHODS[1])
STEPS = 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0)


@pytest.fixture(scope="module")
def pipeline(tiny):
    return Pipeline.from_pretrained(tiny, device="cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("films") / "film.mp4"))


def prompt(seed, name="llava_onevision", length=5):
    return row(name, ("words", 3), ("video", 6), ("words", length, seed))


def anchors(session):
    return [video.merge.anchor.tolist() for video in session.videos]


# what is kept --------------------------------------------------------------------------------------------------------


def video_like(question, frames=3, side=4):
    random = torch.Generator().manual_seed(0)
    features = torch.randn(frames, side * side, question.shape[1], generator=random)
    return VideoTokens(features, (side, side), question=question)


@pytest.mark.parametrize("method", NAMED, ids=repr)
def test_what_the_question_names_stays(method):
    question = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    video = video_like(question)
    video.features[1, 5] = 3 * question.sum(0)
    assert 16 + 5 in method.merge_video(video).anchor.tolist()
    other = VideoTokens(video.features, video.grid, question=-question)
    assert 16 + 5 not in method.merge_video(other).anchor.tolist()


@pytest.mark.parametrize("frames", [1, 3, 7])
@pytest.mark.parametrize("retention", [0.01, 0.1, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("cls", [CDPruner, EchoPrune])
def test_counts_are_exact(cls, retention, frames):
    video = video_like(torch.randn(2, 8), frames)
    method = cls(retention=retention)
    merge = method.merge_video(video)
    assert merge.outputs == method.token_count(frames, video.grid) == max(1, round(frames * 16 * retention))
    counts = torch.bincount(merge.anchor // 16, minlength=frames)
    if cls is CDPruner:
        assert int(counts.max() - counts.min()) <= 1
    else:
        assert counts[0] == min(16, max(1, merge.outputs // frames))


def test_cdpruner_at_a_smaller_retention_keeps_a_part_of_what_it_keeps_at_a_larger_one():
    video = video_like(torch.randn(2, 64))
    kept = [set(CDPruner(retention=share / 48).merge_video(video).anchor.tolist()) for share in range(1, 49)]
    assert all(small < large for small, large in pairwise(kept))


def test_cdpruner_keeps_unlike_tokens():
    """Of tokens that are equally relevant, a copy of one that is kept comes last."""
    features = torch.eye(8)[[0, 0, 0, 1, 2, 3, 0, 4, 5]][None]
    video = VideoTokens(features, (3, 3), question=torch.ones(1, 8))
    assert CDPruner(retention=6 / 9).merge_video(video).anchor.tolist() == [0, 3, 4, 5, 7, 8]


def test_echoprune_drops_what_the_frame_before_tells():
    """A still background is an echo, also where it has moved; something new is none."""
    random = torch.Generator().manual_seed(0)
    still = torch.randn(16, 32, generator=random)
    features = torch.stack([still, still, still.roll(1, 0)])
    features[1, 7] = torch.randn(32, generator=random)
    video = VideoTokens(features, (4, 4), question=torch.randn(3, 32, generator=random) * 0.01)
    assert 16 + 7 in EchoPrune(retention=4 / 48, temperature=0.05).merge_video(video).anchor.tolist()
    worth = EchoPrune(retention=4 / 48, temperature=0.05).choose(video)[1].view(3, 16)
    assert worth[1, 7] > worth[1, 8:].max()
    assert worth[1, 7] > worth[2].mean()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_token_that_is_not_a_number_costs_no_other_one(method):
    """The frame after it and the rest of its own frame are judged as before."""
    random = torch.Generator().manual_seed(0)
    features, question = torch.randn(3, 16, 32, generator=random), torch.randn(2, 32, generator=random)
    whole = method.merge_video(VideoTokens(features, (4, 4), question=question))
    worst = next(place for place in range(16, 32) if place not in whole.anchor.tolist())
    features[1, worst - 16] = torch.nan
    kept = method.merge_video(VideoTokens(features, (4, 4), question=question)).anchor.tolist()
    assert worst not in kept
    assert len(set(kept) & set(whole.anchor.tolist())) >= 12


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_features_may_ask_for_gradients(method):
    video = video_like(torch.randn(2, 16))
    grad = VideoTokens(video.features.clone().requires_grad_(), video.grid, question=video.question.requires_grad_())
    merge = method.merge_video(grad)
    assert merge.anchor.tolist() == method.merge_video(video).anchor.tolist()
    assert not merge.weight.requires_grad


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_video_without_a_question_is_refused(method):
    video = VideoTokens(torch.randn(2, 4, 8), (2, 2))
    with pytest.raises(ValueError, match="looks at the question"):
        method.merge_video(video)


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 7)])
def test_a_question_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"question must have shape \(L, D = 8\)"):
        VideoTokens(torch.randn(2, 4, 8), (2, 2), question=torch.randn(shape))


# in a session --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_method_gets_the_embeddings_of_the_question(name):
    model, one, seen = model_of(name), prompt(1, name), []

    class Noting(CDPruner):
        def merge_video(self, video):
            seen.append(video.question)
            return super().merge_video(video)

    with Session(Noting(), model, question=questions(one)) as session, torch.no_grad():
        model(**batch(name, one))
        wanted = model.get_input_embeddings()(torch.tensor(questions(one)[0]))
    torch.testing.assert_close(seen, [wanted])
    assert session.videos


def test_rows_that_share_a_video_have_questions_of_their_own():
    model, rows = model_of("llava_onevision"), [prompt(seed) for seed in (1, 2, 3)]
    with Session(METHOD, model, question=questions(*rows)) as session, torch.no_grad():
        model(**batch("llava_onevision", *rows))
        together = anchors(session)
        alone = []
        for one in rows:
            session.question = questions(one)[0]
            model(**batch("llava_onevision", one))
            alone += anchors(session)
    assert together == alone
    assert len({*map(tuple, alone)}) > 1


def test_beams_share_their_rows_question():
    model, rows = model_of("qwen2_5_vl"), [prompt(seed, "qwen2_5_vl") for seed in (1, 2)]
    with Session(METHOD, model, question=questions(*rows)) as session:
        model.generate(**batch("qwen2_5_vl", *rows), max_new_tokens=2, num_beams=3, do_sample=False)
        beams = anchors(session)
        model.generate(**batch("qwen2_5_vl", *rows), max_new_tokens=2, do_sample=False)
        plain = anchors(session)
    assert beams == [each for each in plain for _ in range(3)]


def test_a_session_without_a_question_says_how_to_give_one():
    model = model_of("llava_onevision")
    with METHOD(model), pytest.raises(ValueError, match=r"cdpruner looks at the question.*question_ids\(tokenizer"):
        model.generate(**batch("llava_onevision", prompt(1)), max_new_tokens=1)


def test_the_question_of_another_prompt_is_refused():
    model = model_of("llava_onevision")
    with METHOD(model, question=questions(prompt(1))) as session:
        model.generate(**batch("llava_onevision", prompt(1)), max_new_tokens=1)
        with pytest.raises(ValueError, match="do not follow each other in row 0 of the prompt"):
            model.generate(**batch("llava_onevision", prompt(2)), max_new_tokens=1)
        session.question = questions(prompt(2))
        model.generate(**batch("llava_onevision", prompt(2)), max_new_tokens=1)
        session.question = questions(prompt(2), prompt(2))
        with pytest.raises(ValueError, match="has 1 rows, but the session was given 2 questions"):
            model.generate(**batch("llava_onevision", prompt(2)), max_new_tokens=1)


@pytest.mark.parametrize("question", ["What?", ["What?"], [[1, 2], ["What?"]], [1.5, 2.5], [[[1]]]])
def test_what_is_no_ids_is_refused(question):
    with pytest.raises(TypeError, match="question= takes token ids"):
        METHOD(model_of("llava_onevision"), question=question)


@pytest.mark.parametrize("question", [[], [[]], [[1], []], torch.zeros(0, dtype=torch.long)])
def test_an_empty_question_is_refused(question):
    with pytest.raises(ValueError, match="at least one token"):
        METHOD(model_of("llava_onevision"), question=question)


def test_forms_of_a_question():
    for given in ([1, 2], (1, 2), [[1, 2]], torch.tensor([1, 2]), torch.tensor([[1, 2]]), [torch.tensor([1, 2])]):
        assert METHOD(model_of("llava_onevision"), question=given).question == [[1, 2]]


def test_other_methods_take_no_notice_of_a_question():
    model = model_of("llava_onevision")
    with HoliTom(retention=0.3, layer=None)(model, question=[1, 2, 3, 4, 5, 6, 7, 8, 9]) as session:
        model.generate(**batch("llava_onevision", prompt(1)), max_new_tokens=1)
    assert session.videos


def test_it_goes_in_front_of_an_inner_stage():
    model = model_of("llava_onevision")
    with (CDPruner(retention=0.5) | parse("fastv:layer=2"))(model, question=questions(prompt(1))) as session:
        model.generate(**batch("llava_onevision", prompt(1)), max_new_tokens=1)
    full, entered, left = session.videos[0].tokens_by_stage
    assert full > entered > left


# which tokens are the question ---------------------------------------------------------------------------------------

TEXTS = ("What happens?", "user", " Is it\n(A) a cat, or (B) a dog ?  ", "Où est l'été — là ?", "?", "assistant: no")


@pytest.mark.parametrize("text", TEXTS)
def test_the_users_text_is_found_without_the_template(pipeline, text):
    clip = Clip.from_frames(torch.zeros(2, 28, 28, 3, dtype=torch.uint8).numpy())
    ids = pipeline.preprocessor(text, clip)["input_ids"]
    [found] = question_ids(pipeline.preprocessor.tokenizer, ids, text)
    assert text.strip() in pipeline.preprocessor.tokenizer.decode(found)
    row = ids[0].tolist()
    assert any(row[at : at + len(found)] == found for at in range(len(row)))
    shorter = (found[1:], found[:-1])
    assert all(text.strip() not in pipeline.preprocessor.tokenizer.decode(each) for each in shorter)


def test_text_that_is_not_in_the_prompt_is_refused(pipeline):
    tokenizer = pipeline.preprocessor.tokenizer
    ids = tokenizer(["What happens?", "Who is it?"])["input_ids"]
    assert len(question_ids(tokenizer, ids, ["What happens?", "Who is it?"])) == 2
    with pytest.raises(ValueError, match="row 1 of the prompt does not hold the question 'What happens"):
        question_ids(tokenizer, ids, "What happens?")
    with pytest.raises(ValueError, match="2 rows, but there are 1 questions"):
        question_ids(tokenizer, ids, ["What happens?"])


# from the command line and the pipeline ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_ask_tells_the_question(pipeline, film, method):
    clip = read_video(film, 8)
    answers = [pipeline.ask(clip, text, method, max_new_tokens=STEPS) for text in ("What happens?", "How many birds?")]
    for text, answer in zip(("What happens?", "How many birds?"), answers, strict=True):
        inputs = pipeline.preprocessor(text, clip)
        asked = question_ids(pipeline.preprocessor.tokenizer, inputs["input_ids"], text)
        with method(pipeline.model, question=asked) as session:
            pipeline.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
        assert anchors(session) == [answer.summary.prompts[0].videos[0].merge.anchor.tolist()]
    one, other = (answer.summary.prompts[0].videos[0].merge.anchor.tolist() for answer in answers)
    assert one != other


def test_questions_of_one_clip_are_evaluated_as_asked(pipeline):
    clip = suite("train", 1)[0]
    rows = evaluate(pipeline, [clip], [METHOD], Log(None, {}))
    for question, said in zip(clip.questions, rows[0].answers, strict=True):
        answer = pipeline.ask(Clip.from_frames(clip.frames), question.text, METHOD, max_new_tokens=4)
        assert (answer.text.strip().split() or [""])[0].strip(".,;:!?\"'").lower() == said


def test_bench_and_calibrate_tell_the_question(pipeline, film):
    load = from_pipeline(pipeline, 4, batch=2, answer=2)
    run = measure(load, METHOD)
    assert run.summary.visual_tokens[1] == 2 * METHOD.token_count(4, run.summary.prompts[0].videos[0].grid) + 2
    [row] = Encoded(pipeline, read_video(film, 8), [METHOD]).compare("film", "How many birds?", [METHOD], STEPS)
    assert row.answer == pipeline.ask(film, "How many birds?", METHOD, frames=8, max_new_tokens=STEPS).text


def test_the_made_up_prompts_of_bench_have_a_question():
    load = from_preset("tiny", build_preset("tiny", dtype=torch.float32), frames=4, batch=2, text=9, answer=1)
    assert load.question == [[WORD] * 5] * 2
    assert 0 < measure(load, METHOD).summary.visual_tokens[1] < measure(load, Uncompressed()).summary.visual_tokens[1]


def test_the_last_text_of_the_user_is_the_question():
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Watch this."}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A"},
    ]
    assert question_of(conversation) == "What is it?"
    assert question_of(conversation[:1]) == ""


def test_reading_in_windows_is_refused(pipeline, film):
    with pytest.raises(ValueError, match=r"cdpruner looks at the question.*read in windows is merged before"):
        pipeline.ask(film, "What?", METHOD, window=2.0)


def caption(tiny, film, tmp_path, *more):
    words = ["caption", film, "--out", tmp_path / "out.jsonl", "--model", tiny, "--workers", 0, "--frames", 8]
    return CliRunner().invoke(app, [*map(str, words), "--max-new-tokens", str(STEPS), *more])


def test_caption_with_one_question_answers_as_ask(tiny, pipeline, film, tmp_path):
    question = "How many birds?"
    result = caption(tiny, film, tmp_path, "--question", question, "--method", "cdpruner:retention=0.3")
    assert result.exit_code == 0, result.output
    [line] = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines() if "answer" in line]
    answer = pipeline.ask(film, question, METHOD, frames=8, max_new_tokens=STEPS)
    assert line["answer"] == answer.text
    assert line["visual_tokens_out"] == answer.summary.visual_tokens[1]


@pytest.mark.parametrize("more", [["--question", "Who is it?"], ["--window", "2"]])
def test_caption_refuses_to_read_a_video_before_its_question(tiny, film, tmp_path, more):
    result = caption(tiny, film, tmp_path, "--question", "What?", "--method", "cdpruner:retention=0.3", *more)
    assert result.exit_code == 2
    assert "looks at the question" in " ".join(result.output.split())
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["cdpruner", "echoprune"])
def test_a_server_refuses_them(name):
    with pytest.raises(ValueError, match=f"{name} looks at the question, and vLLM") as raised:
        ServingConfig.of(name)
    assert name not in str(raised.value).partition("Use one of")[2]


# prefixes ------------------------------------------------------------------------------------------------------------


def start_of(one, behind=1):
    """A row up to some tokens behind its video, and what of it follows."""
    inputs = batch("llava_onevision", one)
    cut = max(at for at, token in enumerate(one.ids) if token in (VIDEO, IMAGE)) + 1 + behind
    wide = {key: value[:, :cut] for key, value in inputs.items() if value.shape[:2] == (1, len(one.ids))}
    return {**inputs, **wide}, one.ids[cut:]


@pytest.mark.parametrize("behind", [1, 3])
@torch.inference_mode()
def test_a_prefix_serves_the_question_that_it_was_read_for(behind):
    model, one = model_of("llava_onevision"), prompt(1, length=9)
    inputs, rest = start_of(one, behind)
    with Session(METHOD, model, question=questions(one)) as session:
        want = model.generate(**batch("llava_onevision", one), max_new_tokens=STEPS, do_sample=False)[0, -STEPS:]
        made = resume(session, [hold(session, inputs)], [rest], PAD)
        got = model.generate(**made, max_new_tokens=STEPS, do_sample=False)[0, -STEPS:]
        assert got.tolist() == want.tolist()
        with pytest.raises(ValueError, match="for another question than the one that goes on"):
            resume(session, [hold(session, inputs)], [words(9, 2)], PAD)


@torch.inference_mode()
def test_a_prefix_without_a_question_is_refused():
    model = model_of("llava_onevision")
    with Session(METHOD, model) as session:
        with pytest.raises(ValueError, match="looks at the question, but this video is read before"):
            hold(session, start_of(prompt(1))[0])
        session.question = questions(prompt(1))
        hold(session, start_of(prompt(1))[0])


@pytest.mark.parametrize("name", ["internvl", "smolvlm", "qwen3_vl", "glm4v", "gemma4"])
def test_every_kind_of_processor_shows_its_question(name, tmp_path):
    preprocessor = Preprocessor.from_pretrained(checkpoint(name, tmp_path))
    clip = Clip.from_frames(torch.randint(0, 255, (4, 56, 56, 3), dtype=torch.uint8).numpy())
    ids = preprocessor("Which bird is it?", clip)["input_ids"]
    [found] = question_ids(preprocessor.tokenizer, ids, "Which bird is it?")
    assert preprocessor.tokenizer.decode(found).strip() == "Which bird is it?"
