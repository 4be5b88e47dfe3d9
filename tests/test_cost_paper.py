"""The paper's FLOPs formula reproduces the paper's table, to every printed digit."""

import pytest

from holitom.cost.paper import paper_flops, paper_layer_flops, paper_schedule

LAYERS, HIDDEN, INTERMEDIATE = 28, 3584, 18944  # LLaVA-OneVision-7B (Qwen2-7B)
FRAMES, PER_FRAME, INNER_LAYER = 32, 196, 18

# retention, inner merge or not, tera-FLOPs and percentage as the paper prints them
TABLE = [
    (1.00, False, 40.8, 100.0),
    (0.25, False, 8.7, 21.3),
    (0.25, True, 7.1, 17.4),
    (0.20, False, 7.0, 17.2),
    (0.20, True, 5.8, 14.2),
    (0.15, False, 5.2, 12.7),
    (0.15, True, 4.3, 10.5),
    (0.10, False, 3.4, 8.3),
    (0.10, True, 2.8, 6.9),
]


def tera(retention: float, inner: bool, layer: int = INNER_LAYER) -> float:
    schedule = paper_schedule(FRAMES, PER_FRAME, retention, LAYERS, inner_layer=layer if inner else None)
    return paper_flops(schedule, HIDDEN, INTERMEDIATE) / 1e12


@pytest.mark.parametrize(("retention", "inner", "printed", "percent"), TABLE)
def test_the_papers_table_is_reproduced(retention, inner, printed, percent):
    assert round(tera(retention, inner), 1) == printed
    # The paper divides its rounded figures: the exact ratio at 25 % is 21.37, printed 21.3.
    assert round(100 * printed / 40.8, 1) == percent


def test_the_inner_layer_of_the_table_is_18():
    printed = [row[2] for row in TABLE if row[1]]
    for layer in (17, 19):
        assert [round(tera(row[0], True, layer), 1) for row in TABLE if row[1]] != printed


def test_rounding_the_whole_video_instead_of_each_frame_misses_the_table():
    whole = round(FRAMES * PER_FRAME * 0.20)
    assert round(paper_flops([whole] * LAYERS, HIDDEN, INTERMEDIATE) / 1e12, 1) == 6.9  # the paper prints 7.0


def test_schedule_counts():
    assert paper_schedule(32, 196, 0.10, 28) == (640,) * 28
    assert paper_schedule(32, 196, 0.10, 28, inner_layer=18) == (640,) * 18 + (320,) * 10
    assert paper_schedule(1, 20, 0.15, 1) == (3,)


def test_one_layer_term_by_term():
    assert paper_layer_flops(3, 5, 7) == 4 * 3 * 25 + 2 * 9 * 5 + 2 * 3 * 5 * 7
    assert paper_layer_flops(0, 5, 7) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paper_flops([], 4, 4), "tokens_per_layer is empty"),
        (lambda: paper_flops([-1], 4, 4), "tokens must be at least 0"),
        (lambda: paper_schedule(0, 196, 0.1, 28), "frames, tokens_per_frame and layers must be at least 1"),
        (lambda: paper_schedule(32, 196, 0.0, 28), r"retention must be above 0 and at most 1, got 0.0"),
        (lambda: paper_schedule(32, 196, 0.1, 28, inner_retention=2), "inner_retention must be above 0"),
        (lambda: paper_schedule(32, 196, 0.1, 28, inner_layer=28), r"inner_layer must be in 1..27 or None, got 28"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
