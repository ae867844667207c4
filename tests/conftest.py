"""What every test gets: checked shape names, a seed, and the device asked for."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import settings

from tests.shape_names import ShapeNames

# One thread a worker: threads that wait for each other on busy cores cost tenfold.
torch.set_num_threads(1)
settings.register_profile("guide", deadline=None, max_examples=25)
settings.load_profile("guide")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `pytest --device cuda` run every test on the GPU."""
    parser.addoption("--device", default="cpu", help="device for all tensors of tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list) -> None:
    """Skip what needs a GPU where there is none, and say so."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed_and_device(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    torch.set_default_device(request.config.getoption("--device"))
    yield
    torch.set_default_device(None)


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    """Forget what earlier tests traced.

    `flex_attention` traces itself even when it is not compiled; in torch 2.13 a call
    with a score_mod and a block_mask that both capture tensors, then two other calls,
    end in "TypeError: 'NoneType' object is not subscriptable" while torch explains
    why it traces again.
    """
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()


@pytest.fixture(autouse=True)
def _shape_names():
    """Fail when a tensor's name in snippets/ lies about its axes (CODE-1)."""
    with ShapeNames() as watch:
        yield
    assert not watch.lies, "names that lie about shapes:\n" + "\n".join(watch.lies)
