"""Shared by all tests. pytest-xdist's controller, which runs none, reads it without torch."""

import gc
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session):
    if session.config.pluginmanager.has_plugin("dsession"):
        return (yield)
    gc.disable()  # what is imported and collected stays: to search it for garbage was half of the collection's time
    try:
        _prepare()
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _prepare() -> None:
    import torch
    import torchvision_loads  # noqa: F401 - before transformers
    from hypothesis import settings

    torch.set_num_threads(1)  # the tests are many small products; threads only get in each other's way
    settings.register_profile("shared machine", deadline=None)  # how long an example takes says nothing there
    settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first synthetic clip of the test split, as a file that nobody changes."""
    from holitom.video.synthetic.files import write_clips

    folder = tmp_path_factory.mktemp("film")
    write_clips(folder, 1, "test")
    return next(folder.glob("*.mp4"))
