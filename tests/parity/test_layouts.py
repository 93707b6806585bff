"""Names and numbers of the Hugging Face and mmpretrain layouts, against the recorded tables."""

import re

import pytest
import torch
from golden import load, load_json
from recorded_model import VOCAB_SIZE, assert_near, recorded_config, recorded_inputs, recorded_model
from test_forward import check_logits
from torch.nn import functional as F

from ofa.checkpoints.adapt import network_of
from ofa.checkpoints.convert import write, written_tensors
from ofa.checkpoints.formats import HUGGINGFACE, LAYOUTS, MMPRETRAIN, recognize
from ofa.checkpoints.read import Checkpoint, read_source
from ofa.models.config import PRESETS, ModelConfig
from ofa.models.ofa_model import OFAModel

FOREIGN = ("huggingface", "mmpretrain")
ALL_SIZES = ("ofa_tiny", "ofa_medium", "ofa_base", "ofa_large", "ofa_huge")


@pytest.mark.parametrize("arch", ["ofa_tiny", "ofa_base"])
@pytest.mark.parametrize("name", FOREIGN)
def test_every_recorded_key_is_renamed_there_and_back(name, arch):
    layout, table = LAYOUTS[name], load_json(f"layout_{name}")["models"][arch]["table"]
    assert len(table) == {"ofa_tiny": 543, "ofa_base": 967}[arch]
    assert [layout.from_upstream(upstream) for upstream, _, _ in table] == [
        there for _, there, _ in table
    ]
    renamed = [(upstream, there) for upstream, there, _ in table if there is not None]
    assert [layout.to_upstream(there) for _, there in renamed] == [
        upstream for upstream, _ in renamed
    ]
    assert recognize(there for _, there in renamed) is layout
    assert recognize(upstream for upstream, _, _ in table) is LAYOUTS["fairseq"]


@pytest.mark.parametrize("name", FOREIGN)
def test_the_rules_are_the_recorded_ones(name):
    recorded = load_json(f"layout_{name}")["rename_by_segment"]
    assert {place: dict(names) for place, names in LAYOUTS[name].renamed.items()} == {
        k: v for k, v in recorded.items() if v
    }


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("arch", ALL_SIZES)
def test_names_of_all_sizes_come_back(name, arch):
    layout = LAYOUTS[name]
    keys = [key for key, *_ in load_json(f"state_dict_{arch}")["keys"]]
    there = {key: layout.from_upstream(key) for key in keys}
    assert len(set(there.values())) == len(keys) - 1  # the two versions have no name
    assert all(layout.to_upstream(name) == key for key, name in there.items() if name)


@pytest.mark.parametrize("arch", ["ofa_tiny", "ofa_base"])
@pytest.mark.parametrize("name", FOREIGN)
def test_exactly_the_recorded_tensors_are_written(name, arch):
    recorded = load_json(f"layout_{name}")["models"][arch]
    flags = load_json(f"state_dict_{arch}")["flags"]
    config = recorded_config(arch, flags)
    with torch.device("meta"):
        model = OFAModel(config, VOCAB_SIZE)
        found = written_tensors(model, LAYOUTS[name])
        assert sorted(found) == sorted(recorded["layout_key_order"])
        assert [tuple(found[key].shape) for key in found if key.endswith("image_position_idx")] == [
            (1025,)
        ]
        config.freeze_resnet = True  # no counters of batches then; the other layouts have them
        assert sorted(written_tensors(OFAModel(config, VOCAB_SIZE), LAYOUTS[name])) == sorted(found)


@pytest.mark.parametrize("arch", ALL_SIZES)
def test_the_huggingface_configuration_of_every_size(arch):
    recorded = load_json("layout_huggingface")
    config = recorded_config(arch, load_json(f"state_dict_{arch}")["flags"])
    found = HUGGINGFACE.to_config(config, VOCAB_SIZE)
    usual = {
        key: value
        for part in recorded["config_fields"].values()
        if isinstance(part, dict)
        for key, value in part.items()
    }
    sizes = {**usual, **recorded["config_by_size"][arch]}
    trained = {"dropout", "encoder_drop_path_rate", "decoder_drop_path_rate"}  # as the flags say
    assert {key: found[key] for key in sizes.keys() - trained} == {
        key: sizes[key] for key in sizes.keys() - trained
    }
    assert ModelConfig(**no_vocabulary(HUGGINGFACE.from_config(found))) == config


def no_vocabulary(fields: dict) -> dict:
    assert fields.pop("vocab_size") == VOCAB_SIZE
    return fields


def test_a_field_that_a_configuration_lacks_has_the_recorded_default():
    recorded = load_json("layout_huggingface")["config_fields"]
    found = HUGGINGFACE.to_config(ModelConfig(**HUGGINGFACE.from_config(PRESET_FIELDS)), VOCAB_SIZE)
    usual = {
        key: value
        for part in recorded.values()
        if isinstance(part, dict)
        for key, value in part.items()
        if value is not None
    }
    assert {key: found[key] for key in usual} == usual


PRESET_FIELDS = {
    "d_model": 256,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "resnet_type": "resnet50",
}


@pytest.mark.parametrize("arch", ALL_SIZES)
def test_the_mmpretrain_configuration_has_the_recorded_fields(arch):
    recorded = load_json("layout_mmpretrain")["config_fields"]
    config = ModelConfig(
        **PRESETS[arch],
        **dict.fromkeys(("scale_attn", "scale_fc", "scale_heads", "disable_entangle"), True),
    )
    found = MMPRETRAIN.to_config(config, VOCAB_SIZE)
    for part in ("encoder_cfg", "decoder_cfg"):
        of_size = {"num_layers", "num_heads", "embed_images"}
        assert found[part].keys() == recorded[part].keys()
        assert {k: v for k, v in found[part].items() if k not in of_size} == {
            k: v for k, v in recorded[part].items() if k not in of_size
        }
    depth = found["encoder_cfg"]["embed_images"]["depth"]
    assert (found["embedding_dim"], f"resnet{depth}") == (
        config.encoder_embed_dim,
        config.resnet_type,
    )
    assert ModelConfig(**no_vocabulary(MMPRETRAIN.from_config(found))) == config


@pytest.fixture(scope="module")
def tiny():
    cases = {name: load(f"forward_tiny_{name}") for name in ("image_text", "code_all")}
    meta = cases["image_text"]["meta"]
    assert all(
        (case["meta"]["seed"], case["meta"]["flags"]) == (meta["seed"], meta["flags"])
        for case in cases.values()
    )
    return recorded_model(meta), cases


@pytest.mark.parametrize("name", FOREIGN)
@torch.inference_mode()
def test_a_converted_file_computes_the_recorded_numbers(tiny, name, tmp_path):
    model, cases = tiny
    source = Checkpoint("recorded", {"model": model.state_dict()})
    out = tmp_path / {"huggingface": "folder", "mmpretrain": "a.pth"}[name]
    write(source, model, {}, LAYOUTS[name], out)
    result = network_of(read_source(out))
    for case in cases.values():
        logits, extra = result(**recorded_inputs(case))
        check_logits(logits, case)
        assert_near(extra["encoder_output"].states[:, ::3], case["encoder_out"], 1e-4)


@torch.inference_mode()
def test_mmpretrains_names_mean_what_its_layers_do(tiny):
    """A layer of its encoder by its own names: attn_ln comes before the attention, attn_mid_ln
    after it, and so on."""
    model, _ = tiny
    layout, prefix = LAYOUTS["mmpretrain"], "encoder.layers.1."
    w = {
        layout.from_upstream(key).removeprefix("model." + prefix): value
        for key, value in model.state_dict().items()
        if key.startswith(prefix)
    }
    x, bias = (
        torch.randn(1, 5, 256, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1, 4, 5, 5),
    )

    def norm(y, name):
        return F.layer_norm(y, y.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(y, name):
        return F.linear(y, w[f"{name}.weight"], w[f"{name}.bias"])

    y = norm(x, "attn_ln")
    q, k, v = (
        linear(y, f"attn.{part}_proj").unflatten(-1, (4, 64)).transpose(1, 2) for part in "qkv"
    )
    heads = (
        ((q * 128**-0.5) @ k.transpose(-1, -2) + bias).softmax(-1)
        @ v
        * w["attn.c_attn"][:, None, None]
    )
    x1 = x + norm(linear(heads.transpose(1, 2).flatten(2), "attn.out_proj"), "attn_mid_ln")
    y = norm(F.gelu(linear(norm(x1, "ffn_ln"), "fc1")), "ffn_mid_ln")
    expected = x1 + linear(y, "fc2")
    torch.testing.assert_close(
        model.encoder.layers[1](x, bias, None, None), expected, atol=1e-5, rtol=0
    )
    assert not re.search("self_attn|layer_norm", " ".join(w))
