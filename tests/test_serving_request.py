"""What a single request may ask of a server, checked without vLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holitom.integrations.vllm import ServingConfig
from holitom.integrations.vllm.request import for_request, take_settings, to_tensor, token_count

SERVER = ServingConfig.of("holitom", retention=0.25)
SHAPE = (16, (6, 8))


@pytest.mark.parametrize(
    ("asked", "method", "retention"),
    [
        ({"retention": 0.1}, "holitom", 0.1),
        ("holitom:retention=0.1", "holitom", 0.1),
        ({"method": "spread"}, "spread", 0.25),  # the server's retention
        ("spread", "spread", 0.25),
        ({"method": "spread", "retention": 0.05}, "spread", 0.05),
        ({}, "holitom", 0.25),
    ],
)
def test_what_is_not_named_is_the_servers(asked: Any, method: str, retention: float):
    config = for_request(SERVER, asked)
    assert (config.method.name, config.method.retention) == (method, retention)
    assert ServingConfig.parse(json.loads(bytes(to_tensor(config).tolist()))) == config


def test_the_servers_other_settings_stay():
    server = ServingConfig.of("holitom", retention=0.25, similarity=0.7)
    assert for_request(server, {"retention": 0.1}).method.similarity == 0.7


def test_a_retention_replaces_the_servers_own_count():
    server = ServingConfig.of("visionzip", dominant=8, contextual=2)
    assert token_count(server, for_request(server, {"retention": 0.125}), *SHAPE) == 16 * 6
    assert token_count(server, for_request(server, {}), *SHAPE) == 16 * 10


@pytest.mark.parametrize("asked", [{"retention": 0.26}, "spread:retention=1", {"method": "evs", "retention": 0.9}])
def test_no_request_keeps_more_than_the_server(asked: Any):
    config = for_request(SERVER, asked)
    with pytest.raises(ValueError, match=r"keeps \d+ tokens .*16 x 6 x 8, and this server keeps 192: .* less"):
        token_count(SERVER, config, *SHAPE)


def test_counts_are_compared_for_each_shape():
    """What is more for a long video can be the same for a short one, where both keep their one token."""
    config = for_request(SERVER, {"retention": 0.3})
    assert token_count(SERVER, config, 1, (1, 2)) == 1
    with pytest.raises(ValueError, match=r"keeps 230 tokens .*this server keeps 192"):
        token_count(SERVER, config, *SHAPE)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"retention": 1e9}, r"\(0, 1\], got 1000000000"),
        ({"retention": float("nan")}, r"\(0, 1\], got nan"),
        ({"retention": "much"}, "retention must be a number, got 'much'"),
        ({"retention": None}, "None"),
        ({"colour": 1}, "cannot set 'colour', only 'method' and 'retention'"),
        ({"similarity": 0.5, "method": "holitom"}, "cannot set 'similarity'"),
        ({"method": "holitem"}, "did you mean holitom"),
        ({"method": 3}, "name their method.*3"),
        ({"method": "fastv"}, "inside the LLM"),
        ("holitom|fastv", "inside the LLM"),
        ("", "no method ''"),
        (0.1, "text or a mapping.*got 0.1"),
        (["holitom"], r"text or a mapping.*got \['holitom'\]"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_name(asked: Any, complaint: str):
    with pytest.raises((ValueError, TypeError), match=complaint):
        for_request(SERVER, asked)


def test_a_request_reads_no_more_of_the_tower_than_the_server():
    server = ServingConfig.of("spread", retention=0.25)
    with pytest.raises(ValueError, match=r"holitom reads scores of the vision tower.*with spread.*none of that"):
        for_request(server, "holitom")
    assert for_request(server, "evs").method.name == "evs"


@pytest.mark.parametrize(
    "options",
    [
        {"retention": 0.1},
        {"method": "spread", "fps": 2},
        {"videos_kwargs": {"holitom": "spread"}},
        {"videos_kwargs": {"retention": 0.1}},
    ],
)
def test_settings_where_nobody_reads_them_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError, match=r'would be read by nobody.*\{"holitom": '):
        take_settings(options)


def test_other_options_stay():
    options = {"fps": 2, "holitom": {"retention": 0.1}, "videos_kwargs": {"size": {"shortest_edge": 56}}}
    assert take_settings(options) == (
        {"retention": 0.1},
        {"fps": 2, "videos_kwargs": {"size": {"shortest_edge": 56}}},
    )


def test_a_request_leaves_what_happens_inside_the_vision_tower_to_the_server():
    server = ServingConfig.parse("renewal:change=0.2|holitom", retention=0.3)
    asked = for_request(server, {"method": "evs", "retention": 0.1})
    assert asked.method.parts[0] == server.method.parts[0]
    assert asked.method.parts[1] == ServingConfig.of("evs", retention=0.1).method
    assert for_request(server, {"retention": 0.1}) == ServingConfig.parse("renewal:change=0.2|holitom", retention=0.1)
    for other in (server, ServingConfig.of("holitom", retention=0.3)):
        with pytest.raises(ValueError, match="the server's choice"):
            for_request(other, "renewal|holitom:retention=0.1")
