"""Older, smaller and plainer checkpoints fit; others are refused with advice."""

import pytest
import torch
from small_network import build_small

from ofa.checkpoints.adapt import load_into
from ofa.errors import UserError
from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel


def build(vocab: int = 20, **switches) -> OFAModel:
    return build_small(vocab, **switches).eval()


@pytest.fixture
def weights() -> dict:
    torch.manual_seed(3)
    return {key: value.clone() for key, value in build().state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in b)


def test_weights_come_back_unchanged_and_the_given_dict_stays(weights):
    before = dict(weights)
    model = load_into(build(), weights)
    assert same(model.state_dict(), weights) and weights.keys() == before.keys()


@pytest.mark.parametrize("length", [1025, 1026])
def test_code_positions_of_either_length_are_accepted(weights, length):
    weights["decoder.image_position_idx"] = torch.zeros(length, dtype=torch.long)
    model = load_into(build(), weights)
    assert torch.equal(model.decoder.image_position_idx, build().decoder.image_position_idx)


def test_vocabulary_and_positions_grow(weights):
    model = build(vocab=25, max_source_positions=1030, max_target_positions=1040)
    fresh = model.encoder.embed_tokens.weight.detach().clone()
    load_into(model, weights)
    assert torch.equal(
        model.encoder.embed_tokens.weight[:20], weights["encoder.embed_tokens.weight"]
    )
    assert torch.equal(model.encoder.embed_tokens.weight[20:], fresh[20:])
    assert model.decoder.output_projection.weight is model.encoder.embed_tokens.weight
    assert torch.equal(
        model.encoder.embed_positions.weight[:1026], weights["encoder.embed_positions.weight"]
    )
    tokens = torch.full((1, 1028), 5)
    assert model(tokens, prev_output_tokens=tokens)[0].isfinite().all()


def test_a_second_image_type_starts_as_a_copy_of_the_first(weights):
    model = load_into(build(num_image_types=2), weights)
    assert torch.equal(
        model.encoder.type_embedding.weight[2], weights["encoder.type_embedding.weight"][1]
    )


def test_a_shared_table_may_be_stored_once(weights):
    del weights["decoder.embed_tokens.weight"], weights["decoder.output_projection.weight"]
    assert same(load_into(build(), weights).state_dict(), weights)


def test_adapters_and_prompts_start_fresh(weights):
    model = load_into(build(adapter=True, encoder_prompt=True, decoder_prompt=True), weights)
    assert same(model.state_dict(), weights)


def test_frozen_and_trained_batch_norm_exchange_weights(weights):
    frozen = load_into(build(freeze_resnet=True), weights)
    assert torch.equal(
        frozen.encoder.embed_images.bn1.weight, weights["encoder.embed_images.bn1.weight"]
    )
    load_into(build(), frozen.state_dict())


def test_layers_can_be_kept_after_layer_drop(weights):
    model = load_into(build(encoder_layers_to_keep="1"), weights)
    assert torch.equal(model.encoder.layers[0].fc1.weight, weights["encoder.layers.1.fc1.weight"])
    assert torch.equal(
        model.encoder.image_rel_pos_table_list[0].weight,
        weights["encoder.image_rel_pos_table_list.1.weight"],
    )
    assert len(model.encoder.layers) == 1


def test_heads_of_the_checkpoint_are_loaded_added_or_left_out(weights, caplog):
    trained = build()
    trained.register_classification_head("a", 3)
    trained.register_classification_head("pair", 4, inner_dim=6, use_two_images=True)
    weights = trained.state_dict()
    model = load_into(build(), weights)
    assert not model.classification_heads and "'a' of the checkpoint is left out" in caplog.text
    model = load_into(build(load_checkpoint_heads=True), weights)
    assert same(model.state_dict(), weights) and model.classification_heads["pair"].use_two_images
    model = build()
    model.register_classification_head("a", 5)
    load_into(model, weights)
    assert model.classification_heads["a"].out_proj.out_features == 5


def test_heads_that_the_checkpoint_lacks_keep_their_weights(weights):
    model = build()
    model.register_classification_head("a", 3)
    before = model.classification_heads["a"].dense.weight.detach().clone()
    load_into(model, weights)
    assert torch.equal(model.classification_heads["a"].dense.weight, before)


def test_a_checkpoint_of_another_size_names_tensors_and_the_architecture(weights):
    with torch.device("meta"):
        base = OFAModel(
            ModelConfig.from_namespace({"scale_attn": True}, "ofa_base"), 20
        ).state_dict()
        tiny = OFAModel(ModelConfig.from_namespace({}, "ofa_tiny"), 20)
    with pytest.raises(UserError) as error:
        load_into(tiny, base)
    message = str(error.value)
    assert "encoder.embed_tokens.weight is [20, 768], the model has [20, 256]" in message
    assert "--arch=ofa_base" in message and "--scale-attn" in message
    assert len(message) < 900


def test_a_checkpoint_of_a_larger_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"30 entries, here 20"):
        load_into(build(20), build(30).state_dict())


def test_switches_that_differ_are_named(weights):
    with pytest.raises(UserError, match="--scale-heads"):
        load_into(build(), build(scale_heads=True).state_dict())
    with pytest.raises(UserError, match="no --scale-fc"):
        load_into(build(scale_fc=True), weights)


@pytest.mark.parametrize(
    "sizes, advice",
    [
        (dict(image_bucket_size=4), "--image-bucket-size=4 (here 8)"),
        (dict(token_bucket_size=16), "--token-bucket-size=16 (here 8)"),
        (dict(max_source_positions=1030), "--max-source-positions=1030 (here 1024)"),
        (dict(num_image_types=2), "--num-image-types=2 (here 1)"),
    ],
    ids=str,
)
def test_sizes_that_differ_are_named_with_the_value_that_fits(sizes, advice):
    with pytest.raises(UserError) as error:
        load_into(build(), build(**sizes).state_dict())
    assert f"The checkpoint needs {advice}." in str(error.value)


def test_partial_weights_load_when_not_strict(weights):
    model = build()
    load_into(model, {"encoder.layer_norm.bias": torch.full((16,), 7.0)}, strict=False)
    assert model.encoder.layer_norm.bias[0] == 7
