"""A stage inside the vision tower, in every family: against a second computation that knows no rows."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import combinations, pairwise, product
from typing import ClassVar

import numpy as np
import pytest
import torch
from families import FAMILIES, batch, build, model_of, row, three_rows
from matrix import some
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from holitom import HoliTom
from holitom.merge import Merge
from holitom.methods import EarlyTom, Method, Renewal, ToMe, parse
from holitom.models import adapter_for
from holitom.models import transformers_names as names
from holitom.ops.renewal import merge_rows
from holitom.runtime import rows as runtime_rows

KINDS = ("sdpa", "eager")


@dataclass(frozen=True)
class Random(Method):
    """Rows of random lengths; the same for the same seed and shape."""

    name: ClassVar[str] = "random rows"
    layer: int = 0
    seed: int = 0

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        return (self.layer,)

    def merge_tower(self, states) -> Merge:
        frames, patches = states.hidden.shape[:2]
        random = np.random.default_rng(self.seed + frames)
        begins = np.zeros((frames, patches), dtype=np.int64)
        for frame in range(1, frames):
            begins[frame] = np.where(random.random(patches) < 0.4, frame, begins[frame - 1])
        return merge_rows(torch.from_numpy(begins))


@dataclass(frozen=True)
class Same(Random):
    """Merges nothing."""

    def merge_tower(self, states) -> Merge:
        return Merge.identity(states.hidden.shape[0] * states.hidden.shape[1])


class Reference:
    """The same stage without rows: every block works on all patches, and each patch then gets its anchor's state."""

    def __init__(self, model, inputs, method: Random) -> None:
        adapter = adapter_for(model)
        mask = inputs["attention_mask"].bool()
        self.tower = adapter.tower(inputs, (inputs["input_ids"], mask))
        self.method, self.handles, self.encoding = method, [], False
        self.around = around_encoder(model, self.encode)

    def encode(self, encode, args, kwargs):
        self.encoding = True
        try:
            return encode(*args, **kwargs)
        finally:
            self.encoding = False

    def __enter__(self):
        self.around.__enter__()
        used = self.tower.blocks[: len(self.tower.blocks) - len(self.tower.unread)]
        first = used[self.method.layer]
        self.handles = [first.register_forward_pre_hook(self.merge, with_kwargs=True)]
        self.handles += [block.register_forward_hook(self.spread, prepend=True) for block in used[self.method.layer :]]

    def __exit__(self, *exception):
        self.around.__exit__(*exception)
        for handle in self.handles:
            handle.remove()

    def merge(self, block, args, kwargs):
        if not self.encoding:  # images
            return None
        hidden = args[0]
        flat = hidden.flatten(0, -2)
        self.row = torch.arange(len(flat))
        merged = flat.clone()
        for video in self.tower.videos:
            frames, patches = video.sources.shape
            states = type("States", (), {"hidden": torch.empty(frames, patches, 1)})
            merge, sources = self.method.merge_tower(states), video.sources.flatten()
            for output in range(merge.outputs):
                members, weights = merge.sources(output)
                merged[sources[members]] = (weights[:, None] * flat[sources[members]]).sum(0)
            self.row[sources] = sources[merge.anchor][merge.target]
        return (merged.view_as(hidden), *args[1:]), kwargs

    def spread(self, block, args, output):
        if not self.encoding:
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        full = hidden.flatten(0, -2)[self.row].view_as(hidden)
        return (full, *output[1:]) if isinstance(output, tuple) else full


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [part for each in value for part in tensors(each)] if isinstance(value, list | tuple) else []


@contextmanager
def around_encoder(model, call):
    """Has ``call(encode, args, kwargs)`` called in place of the model's encoder of videos."""
    adapter = adapter_for(model)
    own = adapter.base.__dict__.get(adapter.encoder)
    encode = getattr(adapter.base, adapter.encoder)
    setattr(adapter.base, adapter.encoder, wraps(encode)(lambda *args, **kwargs: call(encode, args, kwargs)))
    try:
        yield
    finally:
        delattr(adapter.base, adapter.encoder)
        if own is not None:
            setattr(adapter.base, adapter.encoder, own)


def features(model, inputs) -> list[Tensor]:
    """What the encoder of videos gives, deepstack features included, and last the logits."""
    seen: list[Tensor] = []

    def note(encode, args, kwargs):
        output = encode(*args, **kwargs)
        seen.extend(tensors(output.pooler_output) + tensors(getattr(output, "deepstack_features", None)))
        return output

    with around_encoder(model, note), torch.no_grad():
        logits = model(**inputs).logits
    return [*(each for each in seen if each.numel()), logits]


def far(first: list[Tensor], second: list[Tensor]) -> float:
    assert len(first) == len(second) > 0
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def two_videos(name: str) -> dict[str, Tensor]:
    other = 8 if FAMILIES[name].even else 6
    return batch(name, row(name, ("words", 2), ("video", 8), ("words", 3), ("video", other, 2), ("words", 2)))


def replicas(name: str) -> dict[str, Tensor]:
    """A video whose frames are all the same."""
    inputs = batch(name, row(name, ("words", 2), ("video", 8), ("words", 3)))
    key = next(key for key in inputs if key.startswith("pixel_values"))
    (video,) = adapter_for(model_of(name)).tower(inputs, (inputs["input_ids"], inputs["attention_mask"].bool())).videos
    shape, frames = inputs[key].shape, len(video.sources)
    lead = 1 if shape[0] == 1 else 0
    frames_first = inputs[key].flatten(0, lead).unflatten(0, (frames, -1))
    inputs[key] = frames_first[:1].expand_as(frames_first).reshape(shape).contiguous()
    return inputs


def hooks_of(model) -> dict[str, tuple[int, int, int]]:
    table = names.attention_functions()
    found = {
        name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module.__dict__))
        for name, module in model.named_modules()
    }
    return {**found, "table": tuple(id(table[name]) for name in sorted(table.valid_keys()))}


@pytest.mark.parametrize(("name", "attention"), some(product(FAMILIES, KINDS), 2))
def test_random_rows_equal_a_computation_on_all_patches(name, attention):
    model, inputs = model_of(name, attention), two_videos(name)
    plain = features(model, inputs)
    for layer in (0, 1):
        method = Random(layer=layer)
        before = hooks_of(model)
        with method(model) as session:
            got = features(model, inputs)
        assert hooks_of(model) == before
        with Reference(model, inputs, method):
            want = features(model, inputs)
        scale = max(1.0, max(float(each.abs().max()) for each in plain[:-1]))
        assert far(got[:-1], want[:-1]) < 1e-6 * scale
        assert far(got[-1:], want[-1:]) < 5e-4  # logits: sharpened attention makes rounding errors larger
        assert far(got[:-1], plain[:-1]) > 100 * far(got[:-1], want[:-1])  # else it could hold by accident
        assert all(video.tower.merge.retention < 0.7 for video in session.videos)
        assert len(session.videos) == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_and_keys_are_those_of_all_patches(name):
    model, inputs = model_of(name), two_videos(name)
    method = Random() | HoliTom(retention=0.3, layer=None)
    with method(model) as session:
        features(model, inputs)
    found = [video.scores for video in session.videos]
    with Reference(model, inputs, Random()), HoliTom(retention=0.3, layer=None)(model) as session:
        features(model, inputs)
    assert far(found, [video.scores for video in session.videos]) < 1e-5


@pytest.mark.parametrize(("name", "attention"), some(product(FAMILIES, KINDS), 2, turn=1))
def test_the_identity_changes_no_bit(name, attention):
    model = model_of(name, attention)
    for inputs in (two_videos(name), batch(name, *three_rows(name))):
        plain = features(model, inputs)
        with Same()(model):
            assert far(features(model, inputs), plain) == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_frames_that_are_all_the_same_are_computed_once(name):
    model, inputs = model_of(name), replicas(name)
    plain = features(model, inputs)
    for method in (Renewal(), Renewal(layer=0, change=0), Renewal(layer=0, cut="segments")):
        with method(model) as session:
            got = features(model, inputs)
        assert far(got[:-1], plain[:-1]) < 1e-5 * max(1.0, max(float(each.abs().max()) for each in plain[:-1]))
        assert far(got[-1:], plain[-1:]) < 1e-3
        (video,) = session.videos
        leading = video.tower.leading
        frames = video.tower.frames
        assert video.tower.rows[-1] == len(video.tower.place) + (frames - 1) * leading


@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_never_touched(name):
    if FAMILIES[name].image is None:
        pytest.skip("its tiny prompts have no images")
    model = model_of(name)
    image = row(name, ("words", 2), ("image", 1), ("words", 3))
    mixed = row(name, ("words", 2), ("image", 1), ("words", 3), ("video", 6), ("words", 2))
    with torch.no_grad():
        alone = model(**batch(name, image)).logits
        plain = model(**batch(name, mixed)).logits
        with Random()(model):
            assert torch.equal(model(**batch(name, image)).logits, alone)
            merged = model(**batch(name, mixed)).logits
    span = len(image.ids)
    torch.testing.assert_close(merged[:, :span], plain[:, :span], atol=1e-6, rtol=0)  # what comes in front of the video
    assert not torch.allclose(merged[:, -1], plain[:, -1], atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_with_beams_in_a_batch(name):
    model, inputs = model_of(name), batch(name, *three_rows(name))
    beams = 1 if name.startswith("glm") else 2  # transformers cannot repeat the images of GLM that are not there
    options = {"max_new_tokens": 4, "do_sample": False, "num_beams": beams}
    with Random()(model) as session:
        got = model.generate(**inputs, **options)
    with Reference(model, inputs, Random()):
        want = model.generate(**inputs, **options)
    assert torch.equal(got, want)
    assert [len(prompt.videos) for prompt in session.prompts[::beams]] == [1, 0, 2]
    assert all(video.tower.merge is not None for video in session.videos)


def test_several_turns_on_a_kept_cache():
    name = "llava_onevision"
    model = model_of(name)
    first = row(name, ("words", 3), ("video", 6), ("words", 3))
    answers = []
    for context in (Random()(model), Reference(model, batch(name, first), Random())):
        with context, torch.no_grad():
            out = model(**batch(name, first), use_cache=True)
            cache = names.cache_in(out)
            more = torch.tensor([[5, 6, 7]])
            mask = torch.ones(1, len(first.ids) + 3, dtype=torch.long)
            key = names.cache_argument(model.forward)
            answers.append(model(input_ids=more, attention_mask=mask, **{key: cache}).logits)
    torch.testing.assert_close(*answers, atol=1e-5, rtol=0)


def test_an_exception_restores_everything():
    @dataclass(frozen=True)
    class Broken(Random):
        def merge_tower(self, states):
            raise RuntimeError("no map today")

    @dataclass(frozen=True)
    class Dropping(Random):
        def merge_tower(self, states):
            total = states.hidden.shape[0] * states.hidden.shape[1]
            return Merge.keep(torch.arange(total // 2), total)

    model, inputs = model_of("qwen3_vl"), two_videos("qwen3_vl")
    before, plain = hooks_of(model), features(model, inputs)
    for method, message in ((Broken(), "no map today"), (Dropping(), "every patch needs a row")):
        with pytest.raises((RuntimeError, ValueError), match=message), method(model):
            features(model, inputs)
        assert hooks_of(model) == before
        assert far(features(model, inputs), plain) == 0


def test_a_tower_whose_embedding_is_read_cannot_merge_in_front_of_it():
    model = build("llava_next_video")
    model.config.vision_feature_layer = [0, -2]
    model.model.config.vision_feature_layer = [0, -2]
    inputs = batch("llava_next_video", row("llava_next_video", ("words", 2), ("video", 4), ("words", 2)))
    message = r"reads the states in front of the tower's first block.*layer=1"
    with pytest.raises(ValueError, match=message), Random()(model), torch.no_grad():
        model(**inputs)


@pytest.mark.parametrize("text", ["earlytom:retention=0.3,blocks=[1],layer=none", "tome:merged=0.3|holitom:layer=none"])
def test_the_comparators_run_in_every_family(text):
    for name in FAMILIES:
        model, inputs = model_of(name), two_videos(name)
        with parse(text)(model) as session:
            logits = features(model, inputs)[-1]
        assert bool(torch.isfinite(logits).all())
        for video in session.videos:
            assert video.tower.rows[0] == video.tower.frames * len(video.tower.place)
            if "tome" in text:
                assert video.tower.share < 0.95
                assert video.tower.merge.validate().outputs == video.tower.rows[-1]


def test_tome_merges_a_little_in_front_of_every_block():
    model = build("llava_onevision")
    config = model.config.vision_config
    inputs = two_videos("llava_onevision")
    layers = ToMe(merged=0.4).tower_layers(config.num_hidden_layers)
    with ToMe(merged=0.4)(model) as session:
        features(model, inputs)
    for video in session.videos:
        assert [layer for layer, _ in video.tower.merges] == list(layers)
        assert video.tower.rows[-1] == 8 * (49 - round(0.4 * 49))


def test_earlytom_keeps_tokens_of_the_frames_that_are_left():
    model, inputs = model_of("llava_onevision"), two_videos("llava_onevision")
    with EarlyTom(retention=0.3, similarity=0.0, max_frames=9, blocks=(1,), layer=None)(model) as session:
        features(model, inputs)
    video = session.videos[0]
    anchors = set((video.tower.merge.anchor // len(video.tower.place)).tolist())
    assert len(anchors) < 8
    assert set((video.merge.anchor // 16).tolist()) <= anchors


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("gemma4", "lfm3_vl")])
def test_flops_equal_the_counter(name, monkeypatch):
    """Padded queries are asked in vain: without padding, what is counted is what runs."""
    monkeypatch.setattr(runtime_rows, "_CPU_CALL", 0)
    model = model_of(name, "eager")
    inputs = batch(name, row(name, ("words", 2), ("video", 8), ("words", 3)))
    unread = name in ("llava_next_video", "video_llava")  # whose last layer runs on one state
    for method in (Random(layer=1), Same()):
        counts = []

        def counted(encode, args, kwargs, counts=counts):
            with FlopCounterMode(display=False) as counter:
                output = encode(*args, **kwargs)
            counts.append(counter.get_total_flops())
            return output

        with method(model) as session, around_encoder(model, counted), torch.no_grad():
            model(**inputs)
        cost = session.summary().cost
        assert 0 <= counts[0] - cost.vision.total <= (0.01 * counts[0] if unread else 0)
        assert cost.ratios["vision_flops"] == cost.vision.total / cost.full_vision.total
        assert (cost.ratios["vision_flops"] < 1) == (method != Same() or unread)


def test_groups_are_asked_in_the_cheapest_number_of_calls():
    """Against every way to cut the list."""
    random = np.random.default_rng(0)
    for _ in range(20):
        widths = sorted(random.integers(1, 60, 7).tolist(), reverse=True)
        price = int(random.choice([0, 5, 40, 1000]))

        def cost(cuts, widths=widths, price=price):
            return sum(widths[begin] * (end - begin) + price for begin, end in cuts)

        ways = [[0, *ends, 7] for size in range(7) for ends in combinations(range(1, 7), size)]
        found = runtime_rows._calls(widths, price)
        assert [end for _, end in found[:-1]] == [begin for begin, _ in found[1:]]
        assert (found[0][0], found[-1][1]) == (0, 7)
        assert cost(found) == min(cost(list(pairwise(ends))) for ends in ways)


def test_on_a_gpu_frames_are_asked_in_few_calls():
    random = np.random.default_rng(0)
    begins = np.zeros((32, 729), dtype=np.int64)
    for frame in range(1, 32):
        begins[frame] = np.where(random.random(729) < 0.3 * random.gamma(1.0, 1.0), frame, begins[frame - 1])
    merge = merge_rows(torch.from_numpy(begins))
    rows = torch.bincount(merge.anchor // 729, minlength=32).sort(descending=True).values.tolist()
    calls = runtime_rows._calls(rows, runtime_rows._GPU_CALL / 729)
    assert len(calls) <= 5
    padded = sum(rows[begin] * (end - begin) for begin, end in calls)
    assert padded < 1.25 * merge.outputs


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_where_renewal_stands_aside_no_block_does_more(monkeypatch):
    """Looking at one layer's states takes as many operations in a tower of any depth; and its cost is still known."""
    added = []
    for depth in (2, 6):
        monkeypatch.setitem(FAMILIES["llava_onevision"].config["vision_config"], "num_hidden_layers", depth)
        model, inputs = build("llava_onevision"), two_videos("llava_onevision")
        inputs["pixel_values_videos"] = torch.randn(inputs["pixel_values_videos"].shape)
        counts = []
        for text in ("uncompressed", "renewal"):
            with parse(text)(model) as session, Operations() as ran:
                features(model, inputs)
            counts.append(ran.count)
        added.append(counts[1] - counts[0])
        for video in session.videos:
            assert video.tower.merge is None
            assert video.tower.rows == [8 * 49] * depth
            assert video.tower.pairs == [8 * 49**2] * depth
    assert 0 < added[0] == added[1]


def test_pooling_in_place_is_the_models_own_bit_for_bit():
    model = model_of("llava_onevision")
    for dtype in (torch.float32, torch.bfloat16):
        states = torch.randn(3, 49, 32).to(dtype)
        want = model.base_model.apply_pooling(states)
        with HoliTom()(model):
            assert "apply_pooling" in model.base_model.__dict__
            assert torch.equal(model.base_model.apply_pooling(states), want)
        assert "apply_pooling" not in model.base_model.__dict__


@pytest.mark.parametrize("name", ["llava_next_video", "video_llava"])
def test_a_clip_layer_that_nobody_reads_does_not_run(name):
    model, inputs = model_of(name), two_videos(name)
    plain, seen = features(model, inputs), []
    last = adapter_for(model).tower(inputs).blocks[-1]
    handle = last.mlp.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[:2].numel()))
    with HoliTom(retention=1.0, layer=None)(model) as session:
        got = features(model, inputs)
    handle.remove()
    assert seen == [1]
    assert far(got, plain) == 0
    assert session.summary().cost.ratios["vision_flops"] < 0.75


def test_repeated_frames_are_what_the_tower_makes_of_fewer_frames():
    model, inputs = model_of("llava_onevision"), two_videos("llava_onevision")
    fewer = {**inputs, "pixel_values_videos": inputs["pixel_values_videos"][:, torch.arange(8) // 2 * 2]}
    with parse("repeatframes")(model) as session:
        got = features(model, inputs)
    assert far(got[:-1], features(model, fewer)[:-1]) < 1e-6
    assert session.videos[0].tower.share == 0.5


@dataclass(frozen=True)
class Noting(Method):
    """Notes the features that methods before the LLM get to see."""

    name: ClassVar[str] = "noting"
    seen: list = field(default_factory=list)

    def merge_video(self, video) -> Merge:
        self.seen.append(video.features.clone())
        return super().merge_video(video)

    def settings(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize("name", FAMILIES)
def test_provenance_names_the_tokens_that_a_patch_of_the_tower_changes(name):
    model = model_of(name)
    inputs = batch(name, row(name, ("words", 2), ("video", 8), ("words", 3)))
    tower = adapter_for(model).tower(inputs, (inputs["input_ids"], inputs["attention_mask"].bool()))
    (video,), last = tower.videos, tower.blocks[max(tower.reads)]
    noting = Noting()
    with noting(model) as session, torch.no_grad():
        model(**inputs)
        found = session.videos[0].provenance.validate()
        (plain,), (record,) = noting.seen, session.videos
        count = record.tower.grid[0] * record.tower.grid[1]
        assert found.inputs == record.frames * count
        for frame, patch in ((0, 0), (2, count - 1), (1, count // 2)):
            state = record.tower.place.argsort()[record.tower.leading + patch]

            def disturb(block, args, output, source=video.sources[frame, state]):
                states = (output[0] if isinstance(output, tuple) else output).clone(
                    memory_format=torch.contiguous_format
                )
                states.view(-1, states.shape[-1])[source, ::3] += 1
                return (states, *output[1:]) if isinstance(output, tuple) else states

            handle = last.register_forward_hook(disturb, prepend=True)
            model(**inputs)
            handle.remove()
            changed = (noting.seen[-1] != plain).any(-1).flatten().nonzero()[:, 0]
            source, output, _ = found.edges()
            assert changed.tolist() == output[source == frame * count + patch].tolist() != []


def test_provenance_goes_through_rows_and_a_method_behind():
    """By hand: each row's share of a token is that of all its patches, and a patch's that of its row, weighed."""
    model, inputs = model_of("llava_onevision"), two_videos("llava_onevision")
    with (Random() | HoliTom(retention=0.4, layer=None))(model) as session:
        features(model, inputs)
    video = session.videos[0]
    found, rows, (patch, place, share) = (
        video.provenance.validate(),
        video.tower.patches.validate(),
        video.tower.pooled(video.grid),
    )
    assert rows.target.tolist() == video.tower.merge.target.tolist()  # no class tokens, rows in order
    want = torch.zeros(found.outputs, found.inputs)
    for frame in range(video.frames):
        for one, other, part in zip(patch.tolist(), place.tolist(), share.tolist(), strict=True):
            row_of = int(rows.target[frame * 49 + one])
            sources, weights = rows.sources(row_of)
            token = frame * 16 + other
            if int(video.merge.target[token]) >= 0:
                want[int(video.merge.target[token]), sources] += part * weights * video.merge.weight[token]
    source, output, weight = found.edges()
    got = torch.zeros_like(want).index_put_((output, source), weight, accumulate=True)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_stock_is_the_model_as_transformers_runs_it():
    model, inputs = model_of("llava_next_video"), two_videos("llava_next_video")
    ran = []
    last = adapter_for(model).tower(inputs).blocks[-1]
    handle = last.mlp.register_forward_pre_hook(lambda _m, args: ran.append(args[0].shape[:2].numel()))
    for text in ("uncompressed", "uncompressed:stock=true"):
        with parse(text)(model):
            features(model, inputs)
    handle.remove()
    assert ran == [1, 16 * 37]


@pytest.mark.parametrize("name", ["llava_onevision", "internvl", "qwen2_5_vl", "qwen3_vl", "video_llama_3", "lfm3_vl"])
def test_flash_attention_with_borders_gives_the_same(name, monkeypatch):
    """A kernel that tells packed sequences apart by their borders, as flash attention does, and else attends to all."""
    table, asked = names.attention_functions(), []

    def flash(module, query, key, value, attention_mask, **kwargs):
        borders = kwargs.get("cu_seq_lens_q")
        asked.append(borders is not None)
        parts = [(query, key, value)]
        if borders is not None:
            parts = list(
                zip(*(torch.split(each, borders.diff().tolist(), 2) for each in (query, key, value)), strict=True)
            )
        scale = kwargs.get("scaling")
        many = {"scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
        out = [torch.nn.functional.scaled_dot_product_attention(*part, **many) for part in parts]
        return torch.cat(out, 2).transpose(1, 2).contiguous(), None

    model, inputs = build(name), two_videos(name)
    with Random(layer=1)(model):
        want = features(model, inputs)
    monkeypatch.setitem(table, "flash_attention_2", flash)
    tower = adapter_for(model).tower(inputs, (inputs["input_ids"], inputs["attention_mask"].bool()))
    for module in tower.attention:
        if module is not None:
            module.config._attn_implementation = "flash_attention_2"
    with Random(layer=1)(model):
        got = features(model, inputs)
    assert asked
    assert far(got[:-1], want[:-1]) < 1e-6


def test_gradients_reach_the_pixels_and_checkpointing_is_refused():
    model, inputs = build("qwen2_vl"), two_videos("qwen2_vl")
    inputs["pixel_values_videos"].requires_grad_()
    with Random()(model):
        model(**inputs).logits.sum().backward()
    assert bool(inputs["pixel_values_videos"].grad.abs().sum() > 0)
    model.train()
    model.gradient_checkpointing_enable()
    with (
        pytest.raises(ValueError, match="gradient checkpointing runs the vision tower's blocks again"),
        Random()(model),
    ):
        model(**inputs)
