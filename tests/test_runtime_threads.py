"""Threads that share a model, a session, or both: every request gets its own answer, under its own session."""

from __future__ import annotations

import logging
import threading

import pytest
import torch
from models import llava_onevision, padded, prompt, video
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from holitom import HoliTom
from holitom.methods.fastv import FastV
from holitom.methods.pyramiddrop import PyramidDrop
from holitom.runtime import Session

SCORED = HoliTom(retention=0.2, similarity=1.0, layer=None)  # no position is static: scores decide alone
METHODS = {
    "scores": SCORED,
    "inner": HoliTom(retention=0.3, layer=2),
    "last": FastV(layer=2),
    "coming": PyramidDrop(),
}
REQUESTS = [(6, 0), (4, 1), (8, 2), (6, 3)]  # frames and seed


@pytest.fixture(scope="module")
def model():
    return llava_onevision()


def ask(model, frames, seed, steps=2):
    out = model.generate(
        **padded([prompt(frames, seed=seed)]),
        pixel_values_videos=video(frames, seed=seed),
        max_new_tokens=steps,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(out.logits, 1)


def run(*works):
    """Runs functions in a thread each; raises what the first of them raised."""
    errors: list[BaseException] = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def compare(model, wanted, requests, wrong):
    """One thread's work: asks again and again, and notes what differs."""

    def work():
        for number in range(requests):
            frames, seed = REQUESTS[number % len(REQUESTS)]
            if not torch.equal(ask(model, frames, seed), wanted[frames, seed]):
                wrong.append((frames, seed))

    return work


@pytest.mark.parametrize("requests", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METHODS)
def test_threads_on_one_session(model, name, requests):
    with METHODS[name](model):
        wanted = {request: ask(model, *request) for request in REQUESTS}
        wrong: list[object] = []
        run(*[compare(model, wanted, requests, wrong) for _ in range(4)])
    assert wrong == []
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


@pytest.mark.parametrize("requests", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_each_thread_works_under_its_own_session(model, requests):
    """A session for each request, and in one thread none at all."""
    plain = {request: ask(model, *request) for request in REQUESTS}
    wanted = {}
    for name, method in METHODS.items():
        with method(model):
            wanted[name] = {request: ask(model, *request) for request in REQUESTS}
    wrong: list[object] = []

    def work(name):
        for number in range(requests):
            request = REQUESTS[number % len(REQUESTS)]
            with METHODS[name](model) as session:
                same = torch.equal(ask(model, *request), wanted[name][request])
                if not same or session.videos[0].frames != request[0]:
                    wrong.append((name, request))

    run(*[lambda name=name: work(name) for name in METHODS], compare(model, plain, requests, wrong))
    assert wrong == []
    assert all("generate" not in vars(module) for module in model.modules())


def test_the_main_threads_session_serves_threads_that_have_none(model):
    request = REQUESTS[0]
    seen = {}
    with SCORED(model):
        wanted = ask(model, *request)
        run(lambda: seen.update(shared=ask(model, *request)))
    assert torch.equal(seen["shared"], wanted)


def test_a_session_of_another_thread_serves_only_that_one_unless_attached(model, caplog):
    request, plain, seen = REQUESTS[0], ask(model, *REQUESTS[0]), {}
    with SCORED(model):
        wanted = ask(model, *request)

    def opened():
        with SCORED(model), caplog.at_level(logging.WARNING, logger="holitom"):
            seen["own"] = ask(model, *request)
            run(lambda: seen.update(other=ask(model, *request)))
        session = SCORED.attach(model)
        run(lambda: seen.update(attached=ask(model, *request)))
        session.remove()

    run(opened)
    assert torch.equal(seen["own"], wanted)
    assert torch.equal(seen["other"], plain)
    assert torch.equal(seen["attached"], wanted)
    assert "use attach(), which serves all threads" in caplog.text


def test_a_call_goes_on_to_its_end_when_its_session_is_left(model):
    """Another thread generates under a session that the main thread leaves meanwhile."""
    request, begun, left = REQUESTS[0], threading.Event(), threading.Event()
    with METHODS["inner"](model):
        wanted = ask(model, *request, steps=4)
    got = {}

    def waits(module, args):
        begun.set()
        assert left.wait(60)

    handle = model.lm_head.register_forward_pre_hook(waits)
    with METHODS["inner"](model):
        worker = threading.Thread(target=lambda: got.update(logits=ask(model, *request, steps=4)))
        worker.start()
        assert begun.wait(60)
    left.set()
    worker.join()
    handle.remove()
    assert torch.equal(got["logits"], wanted)
    assert "generate" not in vars(model)
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def test_what_a_session_tells_is_of_one_request(model):
    """Whichever thread it came from, the records of a prompt belong together."""
    with Session(SCORED, model) as session:

        def work(frames, seed):
            for _ in range(10):
                ask(model, frames, seed, steps=1)
                prompts = session.prompts
                assert len({len(prompts), len(prompts[0].videos)}) == 1
                assert prompts[0].tokens == len(prompt(prompts[0].videos[0].frames))

        run(*[lambda request=request: work(*request) for request in REQUESTS])
