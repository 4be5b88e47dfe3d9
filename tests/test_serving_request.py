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
    assert for_request(server, {"similarity": 0.9}).method.retention == 0.25


def test_a_count_of_a_methods_own_replaces_the_servers_retention():
    server = ServingConfig.of("visionzip", retention=0.25)
    config = for_request(server, "evs:pruning_rate=0.9")
    assert token_count(server, config, *SHAPE) == int(16 * 48 * 0.1)
    assert token_count(server, for_request(server, "visionzip:dominant=4,contextual=2"), *SHAPE) == 16 * 6


@pytest.mark.parametrize("asked", [{"retention": 0.26}, "spread:retention=1", {"method": "evs", "pruning_rate": 0.1}])
def test_no_request_keeps_more_than_the_server(asked: Any):
    config = for_request(SERVER, asked)
    with pytest.raises(ValueError, match=r"keeps \d+ tokens .*16 x 6 x 8, and this server keeps 192: .* less"):
        token_count(SERVER, config, *SHAPE)


def test_small_videos_are_compared_by_their_counts():
    """EVS keeps at least a frame, so what is less of a long video can be more of a short one."""
    config = for_request(SERVER, "evs:pruning_rate=0.9")
    assert token_count(SERVER, config, *SHAPE) == int(16 * 48 * 0.1)
    with pytest.raises(ValueError, match=r"keeps 48 tokens .*this server keeps 12"):
        token_count(SERVER, config, 1, (6, 8))


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"retention": 1e9}, r"\(0, 1\], got 1000000000"),
        ({"retention": float("nan")}, r"\(0, 1\], got nan"),
        ({"retention": "much"}, "retention must be a number, got 'much'"),
        ({"retention": None}, "None"),
        ({"colour": 1}, "no parameter 'colour'"),
        ({"method": "holitem"}, "did you mean holitom"),
        ({"method": 3}, "name their method.*3"),
        ({"method": "fastv"}, "inside the LLM"),
        ({"method": "holitom", "layer": 18}, "inside the LLM"),
        ({"exact": False}, "places before it has seen"),
        ({"positions": "compact"}, "positions='compact': vLLM places tokens in one way"),
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
