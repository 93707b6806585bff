"""Switches of the network that no recording covers, and what it refuses."""

import copy
import pickle
import random

import pytest
import torch
from small_network import build_small
from torch._subclasses.fake_tensor import FakeTensorMode

from ofa.errors import UserError
from ofa.models.config import PRESETS, ModelConfig, preset
from ofa.models.encoder import EncoderOutput
from ofa.models.layers import ACTIVATIONS, DropPath
from ofa.models.ofa_model import OFAModel


def build(**switches) -> OFAModel:
    return build_small(30, **{"encoder_layers": 3, **switches})


def batch(side: int = 64) -> dict:
    torch.manual_seed(1)
    src_tokens = torch.randint(4, 30, (2, 5))
    src_tokens[1, 3:] = 1
    return {
        "src_tokens": src_tokens,
        "prev_output_tokens": torch.randint(4, 30, (2, 4)),
        "patch_images": torch.randn(2, 3, side, side),
        "patch_masks": torch.tensor([True, True]),
    }


def gradients(model: OFAModel) -> dict[str, torch.Tensor]:
    logits, _ = model(**batch())
    logits.logsumexp(-1).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_network_is_built_and_steps_without_numbers():
    """As tools that count memory and operators do, which ask for no value of any tensor."""
    facts = {"source_padding": True, "target_padding": True, "image_codes": False}
    with FakeTensorMode():
        network = build(encoder_drop_path_rate=0.1, resnet_drop_path_rate=0.1).train()
        logits, _ = network(**batch(), facts=facts)
        assert logits.shape == (2, 4, 30)
        logits.sum().backward()
        assert (
            network.encoder.layers[0].fc1.weight.grad.shape
            == network.encoder.layers[0].fc1.weight.shape
        )


@pytest.mark.parametrize("flag", ["checkpoint_activations", "offload_activations"])
def test_saving_memory_does_not_change_gradients(flag):
    plain = gradients(build().train())
    saving = gradients(build(**{flag: True}).train())
    assert plain.keys() == saving.keys()
    for name in plain:
        torch.testing.assert_close(saving[name], plain[name], atol=1e-6, rtol=1e-4)


def test_checkpointed_layers_keep_fewer_activations():
    def kept(model: OFAModel) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.numel()) or x, lambda x: x
        ):
            model(**batch())
        return sum(sizes)

    def of_layers(**switches) -> int:
        return kept(build(encoder_layers=5, **switches).train()) - kept(
            build(encoder_layers=1, **switches).train()
        )

    assert of_layers(checkpoint_activations=True) < 0.5 * of_layers()


def test_layer_drop_skips_layers_in_training_only():
    model, calls = build(encoder_layerdrop=0.5, decoder_layerdrop=0.5), []
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        layer.register_forward_hook(lambda *_: calls.append(1))
    model.eval()(**batch())
    assert len(calls) == 5
    calls.clear()
    for _ in range(20):
        model.train()(**batch())
    assert 20 < len(calls) < 80


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    y = layer(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y == y[:, :1, :1]).all() and y.mean().item() == pytest.approx(1, abs=0.03)
    assert layer.eval()(x) is x


def test_drop_path_rates_rise_to_the_last_layer():
    model = build(encoder_drop_path_rate=0.2, resnet_drop_path_rate=0.3)
    assert [layer.drop_path.rate for layer in model.encoder.layers] == pytest.approx([0, 0.1, 0.2])
    assert model.encoder.embed_images.layer1[0].drop_path.rate == 0
    assert model.encoder.embed_images.layer3[-1].drop_path.rate == pytest.approx(0.3)


def test_patches_are_drawn_once_per_row_with_pythons_generator():
    model, inputs = build().eval(), batch()
    random.seed(5)
    chosen = [random.sample(range(16), k=6) for _ in range(2)]
    random.seed(5)
    found = model.encode(**inputs, sample_patch_num=6).positions
    full = model.encode(**inputs).positions
    assert found.shape == (2, 6 + 5, 16)
    torch.testing.assert_close(found[1, :6], full[0, chosen[1]])


def test_more_patches_than_there_are_means_all_of_them():
    assert build().eval().encode(**batch(), sample_patch_num=196).states.size(1) == 16 + 5


def test_frozen_batch_norm_does_not_move():
    model = build(freeze_resnet=True).train()
    before = {name: x.clone() for name, x in model.encoder.embed_images.named_buffers()}
    found = gradients(model)
    assert (
        "encoder.embed_images.conv1.weight" in found
        and "encoder.embed_images.bn1.weight" not in found
    )
    assert all(
        torch.equal(x, before[name]) for name, x in model.encoder.embed_images.named_buffers()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_also_with_padding(dtype):
    model = build(scale_heads=True).eval().to(dtype)
    inputs = batch()
    inputs["patch_images"] = inputs["patch_images"].to(dtype)
    inputs["patch_masks"][1] = False
    logits, _ = model(**inputs)
    assert logits.dtype == dtype and logits.isfinite().all()
    cache = model.decoder.start(model.encode(**inputs), 2, 4)
    assert model.decoder.step(torch.zeros(2, 2, dtype=torch.long), cache).isfinite().all()


def test_large_images_give_the_same_numbers_in_either_memory_order():
    stem = build(image_bucket_size=16).eval().encoder.embed_images
    images = torch.randn(1, 3, 224, 224)
    whole = stem(images)
    torch.testing.assert_close(
        whole[..., :4, :4], stem(images[..., :160, :160])[..., :4, :4], atol=1e-4, rtol=1e-3
    )


def test_an_image_larger_than_the_grid_is_refused():
    with pytest.raises(
        UserError, match="144 x 144 pixels has 9 x 9 patches, the model knows 8 x 8"
    ):
        build().encode(**batch(144))


def test_texts_longer_than_the_positions_are_refused():
    model, inputs = build(max_source_positions=4, max_target_positions=3), batch()
    with pytest.raises(UserError, match="5 tokens is longer than --max-source-positions 4"):
        model(**inputs)
    with pytest.raises(UserError, match="4 tokens is longer than --max-target-positions 3"):
        build(max_target_positions=3)(**inputs)
    with pytest.raises(UserError, match="does not fit --code-image-size 32"):
        model.decoder.check_length(2000, True)


def test_two_images_need_a_third_type():
    inputs = {**batch(), "patch_images_2": torch.randn(2, 3, 32, 32)}
    with pytest.raises(UserError, match="--num-image-types 2"):
        build()(**inputs)
    assert build(num_image_types=2).encode(**inputs).states.size(1) == 4 + 16 + 5


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        UserError, match="unknown architecture 'ofa_tny'; known: ofa_nano, ofa_tiny"
    ):
        preset("ofa_tny")
    with pytest.raises(UserError, match="unknown activation 'swish'; known: gelu"):
        build(activation_fn="swish")
    with pytest.raises(UserError, match="unknown image stem 'resnet7'; known: resnet18"):
        build(resnet_type="resnet7")
    with pytest.raises(UserError, match="no classification head 'a'; registered: none"):
        build()(**batch(), classification_head_name="a")


def test_logits_of_chosen_positions_are_those_among_all():
    model, positions = build().eval(), torch.tensor([6, 0, 3])
    everything, _ = model(**batch())
    chosen, _ = model(**batch(), output_positions=positions)
    torch.testing.assert_close(chosen, everything.flatten(0, 1)[positions], atol=1e-6, rtol=1e-5)
    states, _ = model(**batch(), output_positions=positions, features_only=True)
    assert states.shape == (3, model.config.decoder_embed_dim)


@pytest.mark.parametrize("classifier", ["mlp", "linear"])
def test_classification_heads_read_the_last_real_position(classifier):
    model = build(pooler_classifier=classifier).eval()
    model.register_classification_head("a", num_classes=3)
    inputs = batch()
    found, _ = model(**inputs, classification_head_name="a")
    inputs["prev_output_tokens"] = torch.nn.functional.pad(
        inputs["prev_output_tokens"], (0, 2), value=1
    )
    padded, _ = model(**inputs, classification_head_name="a")
    assert found.shape == (2, 3)
    torch.testing.assert_close(padded, found, atol=1e-5, rtol=1e-4)


def test_encoder_outputs_can_be_repeated_and_chosen():
    output = build().eval().encode(**batch())
    assert isinstance(output, EncoderOutput)
    chosen = output.select(torch.tensor([1, 1, 0]))
    assert torch.equal(chosen.states[2], output.states[0]) and chosen.positions.size(0) == 1


def test_nano_is_small_and_every_preset_is_a_valid_configuration():
    for name in PRESETS:
        ModelConfig.from_namespace({}, name)
    nano = OFAModel(ModelConfig.from_namespace({}, "ofa_nano"), 1000)
    assert sum(p.numel() for p in nano.parameters()) < 4e6


def test_padding_behind_image_codes_may_lie_outside_of_a_small_grid():
    """Cell 1024, which upstream writes there, does not exist in a grid of 8 x 8; nor does it
    matter what stands there."""
    model = build_small(50).eval()
    assert model.decoder.image_position_idx.max() == 1024 > model.decoder.image_rp_bucket.size(0)
    source = torch.randint(4, 50, (2, 5))
    codes = torch.randint(4, 50, (2, 17 + 9))
    codes[0, 17:] = model.pad
    both = {
        "src_tokens": source,
        "prev_output_tokens": codes,
        "code_masks": torch.tensor([True, False]),
    }
    alone = {
        name: value[:1, :17] if name == "prev_output_tokens" else value[:1]
        for name, value in both.items()
    }
    with torch.no_grad():
        torch.testing.assert_close(model(**both)[0][:1, :17], model(**alone)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
@torch.no_grad()
def test_networks_with_any_activation_are_copied_and_pickled(name):
    model = build(activation_fn=name).eval()
    expected = model(**batch())[0]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(**batch())[0], expected)
