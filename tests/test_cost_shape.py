"""Shapes are read from configs, and refuse what they do not know by name."""

import pytest
from cost_models import FAMILIES, config
from transformers import AutoConfig, BertConfig, CLIPVisionConfig, GPT2Config, SiglipVisionConfig

from holitom.cost import AttentionShape, DeltaNetShape, ExpertsShape, LayerShape, ModelShape, VisionShape
from holitom.cost.families import SUPPORTED_FAMILIES


def test_every_supported_family_is_tested_here():
    assert set(SUPPORTED_FAMILIES) == set(FAMILIES)


def test_llava_onevision_7b():
    text = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    text |= {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152128}
    shape = ModelShape.from_config(AutoConfig.for_model("llava_onevision", text_config=text))
    assert (shape.family, shape.depth, shape.hidden, shape.vocab) == ("llava_onevision", 28, 3584, 152128)
    assert shape.layers == (LayerShape(AttentionShape(28, 4, 128), 18944),) * 28
    assert shape.vision is not None
    assert (shape.vision.grid, shape.vision.layers, shape.vision.hidden) == ((27, 27), 26, 1152)
    assert shape.vision.projector == ((1152, 3584), (3584, 3584))


def test_qwen3_vl_moe_mixes_dense_and_sparse_layers():
    layers = ModelShape.from_config(config("qwen3_vl_moe")).layers
    assert [layer.experts for layer in layers] == [ExpertsShape(5, 2, 12), None, ExpertsShape(5, 2, 12)]
    assert [layer.active_intermediate for layer in layers] == [24, 40, 24]


def test_sliding_layers_carry_their_window():
    text = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    layers = ModelShape.from_config(config("llava_onevision", **text)).layers
    assert [layer.attention.window for layer in layers] == [None, 7, 7]
    layers = ModelShape.from_config(config("llava_next_video", model_type="mistral", sliding_window=5)).layers
    assert [layer.attention.window for layer in layers] == [5, 5, 5]


def test_qwen2_5_vl_windows_are_in_patches():
    vision = ModelShape.from_config(config("qwen2_5_vl")).vision
    assert vision is not None
    assert (vision.window, vision.full_layers) == (4, (1, 3))


def test_an_unknown_model_is_refused_by_the_name_of_its_config():
    with pytest.raises(ValueError, match=r"cost of BertConfig \(model type 'bert'\) is not known; .*llava_onevision"):
        ModelShape.from_config(BertConfig())


def test_an_unknown_decoder_or_tower_is_refused_by_name():
    vision = SiglipVisionConfig().to_dict()
    with pytest.raises(ValueError, match="LlavaOnevisionConfig with a decoder of GPT2Config"):
        ModelShape.from_config(
            AutoConfig.for_model("llava_onevision", vision_config=vision, text_config=GPT2Config().to_dict())
        )
    with pytest.raises(ValueError, match="LlavaOnevisionConfig with a vision tower of BertConfig"):
        ModelShape.from_config(AutoConfig.for_model("llava_onevision", vision_config={"model_type": "bert"}))


def test_a_clip_tower_without_cropping_projects_its_class_token():
    options = {"vision_config": CLIPVisionConfig().to_dict(), "vision_feature_select_strategy": "full"}
    vision = ModelShape.from_config(AutoConfig.for_model("llava_onevision", **options)).vision
    assert vision is not None
    assert (vision.class_tokens, vision.projector_input) == (1, "all")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AttentionShape(4, 3, 8), ValueError, "kv_heads must divide heads, got 3 and 4"),
        (lambda: AttentionShape(4, 0, 8), ValueError, r"AttentionShape.kv_heads must be at least 1, got 0"),
        (lambda: AttentionShape(4, 2, 8.0), TypeError, r"AttentionShape.head_dim must be an int, got 8.0"),
        (lambda: AttentionShape(4, 2, 8, window=0), ValueError, "window must be at least 1 or None, got 0"),
        (lambda: ExpertsShape(4, 5, 8), ValueError, "per_token must be at most count = 4, got 5"),
        (lambda: ExpertsShape(4, 2, 8, -1), ValueError, "shared_intermediate must be at least 0"),
        (lambda: DeltaNetShape(1, 1, 1, 0), ValueError, r"DeltaNetShape.value_dim must be at least 1"),
        (lambda: LayerShape(AttentionShape(4, 2, 8), 0), ValueError, "a layer needs an MLP"),
        (lambda: LayerShape(AttentionShape(4, 2, 8), -1), ValueError, "must be at least 0, got -1 and 0"),
        (lambda: ModelShape("tiny", 8, 16, ()), ValueError, "has at least one decoder layer"),
        (
            lambda: VisionShape(1, 8, 2, 4, 8, 8, (), projector_input="half"),
            ValueError,
            "projector_input must be 'merged', 'patches' or 'all', got 'half'",
        ),
        (
            lambda: VisionShape(1, 8, 2, 4, 8, 8, (), merge=2, window=3),
            ValueError,
            "window must be a multiple of merge = 2, got 3",
        ),
    ],
)
def test_bad_shapes_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
