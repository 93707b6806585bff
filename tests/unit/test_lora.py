"""LoRA and what all parameter-efficient tuning promises of the network: it starts as the base, and
nothing else moves.
"""

import pytest
import torch
from small_network import build_small

from ofa.checkpoints.adapt import load_into
from ofa.checkpoints.edit import merge_lora
from ofa.errors import UserError
from ofa.models.config import ModelConfig
from ofa.models.inference_weights import PackedLinear, inference_network
from ofa.models.peft import LoraLinear, freeze, tuned_names

VOCAB = 20
LORA = dict(lora_rank=2, lora_alpha=6.0, lora_targets="q,k,v,out,fc1,fc2,image")
METHODS = {
    "prefix": dict(
        encoder_prompt=True, decoder_prompt=True, encoder_prompt_length=3, decoder_prompt_length=2
    ),
    "projection": dict(
        encoder_prompt=True, encoder_prompt_projection=True, encoder_prompt_length=3
    ),
    "adapter": dict(adapter=True, adapter_dim=4),
    "bitfit": dict(bitfit=True),
    "lora": LORA,
}


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, VOCAB, (2, 5), generator=generator)
    return dict(
        src_tokens=tokens,
        prev_output_tokens=tokens.flip(1),
        patch_images=torch.randn(2, 3, 32, 32, generator=generator),
    )


def light(method: str, **more):
    model = build_small(VOCAB, **METHODS[method], **more)
    freeze(model)
    return model


def learned_lora():
    """A model whose LoRA is no longer zero, in evaluation mode."""
    model = light("lora").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_up"):
                parameter.normal_()
    return model


@torch.no_grad()
def test_lora_starts_as_its_base_which_loads_as_it_is():
    base, model = build_small(VOCAB).eval(), light("lora").eval()
    own = dict(model.named_parameters())
    # the seed's weights as well
    assert all(torch.equal(tensor, own[name]) for name, tensor in base.named_parameters())
    load_into(model, base.state_dict())
    assert torch.equal(model(**inputs())[0], base(**inputs())[0])


@torch.no_grad()
def test_merged_lora_is_the_plain_architecture_and_computes_the_same():
    model, plain = learned_lora(), build_small(VOCAB).eval()
    before = plain(**inputs())[0]
    merged = merge_lora(model.state_dict(), LORA["lora_alpha"])
    assert list(merged) == list(plain.state_dict())
    load_into(plain, merged)
    torch.testing.assert_close(plain(**inputs())[0], model(**inputs())[0], atol=2e-5, rtol=0)
    assert (plain(**inputs())[0] - before).abs().max() > 1e-2
    layer = model.encoder.layers[0].fc1
    # alpha / rank is 3
    expected = layer.weight + 3 * torch.einsum("or,ri->oi", layer.lora_up, layer.lora_down)
    torch.testing.assert_close(merged["encoder.layers.0.fc1.weight"], expected)


@torch.no_grad()
def test_networks_for_inference_have_lora_merged():
    model = learned_lora()
    expected = model(**inputs())[0]
    fast = inference_network(model)
    assert type(fast.encoder.layers[0].self_attn.q_proj) is PackedLinear
    torch.testing.assert_close(fast(**inputs())[0], expected, atol=2e-5, rtol=0)
    assert type(model.encoder.layers[0].self_attn.q_proj) is LoraLinear


def test_targets_choose_the_layers():
    def found(targets: str) -> set[str]:
        model = build_small(VOCAB, lora_rank=1, lora_targets=targets)
        return {name for name, module in model.named_modules() if isinstance(module, LoraLinear)}

    assert found("q,out") == {
        f"{side}.layers.{layer}.{attention}.{part}_proj"
        for side, attentions in (
            ("encoder", ["self_attn"]),
            ("decoder", ["self_attn", "encoder_attn"]),
        )
        for layer in (0, 1)
        for attention in attentions
        for part in ("q", "out")
    }
    assert found("image") == {"encoder.image_proj"}
    with pytest.raises(
        UserError, match="--lora-targets expects some of q,k,v,out,fc1,fc2,image, found 'q,w'"
    ):
        ModelConfig(lora_rank=1, lora_targets="q,w")


@pytest.mark.parametrize("method", METHODS)
def test_light_tuning_changes_what_is_tuned_and_nothing_else(method):
    """Weights, batch norm statistics; and no gradient is computed that nobody needs."""
    model = light(method).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stem = []
    model.encoder.embed_images.register_forward_hook(
        lambda module, given, output: stem.append(output.requires_grad)
    )
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0
    )
    for _ in range(2):
        model(**inputs())[0].square().sum().backward()
        optimizer.step()
    assert stem == [False, False]
    assert all(
        (parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters()
    )
    changed = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    # its gradient starts at zero, as lora_up does
    slow = {name for name in tuned_names(model) if name.endswith("lora_down")}
    assert tuned_names(model) - slow <= changed <= tuned_names(model) != set()


def test_methods_can_be_combined_and_upstream_adapters_leave_the_backbone_trainable():
    model = light("lora", **METHODS["prefix"], bitfit=True)
    assert {name.rpartition(".")[2] for name in tuned_names(model)} == {
        "weight",
        "bias",
        "lora_down",
        "lora_up",
    }
    assert "encoder.encoder_prompt_encoder.embedding.weight" in tuned_names(model)
    model = build_small(VOCAB, adapter=True, adapter_train_backbone=True).train()
    assert model.config.peft_methods == [] and model.encoder.embed_images.bn1.training
    assert light("adapter", adapter_train_backbone=True).encoder.layers[0].fc1.weight.requires_grad


@pytest.mark.parametrize(
    "down, up",
    [((2, 3), None), ((2, 3), (4, 1)), ((0, 3), (4, 0)), ((2,), (4, 2)), ((2, 9), (4, 2))],
)
def test_weights_of_lora_that_do_not_belong_together_are_named(down, up):
    weights = {"a.weight": torch.zeros(4, 3), "a.lora_down": torch.zeros(down)} | (
        {} if up is None else {"a.lora_up": torch.zeros(up)}
    )
    with pytest.raises(UserError, match="expected a.(weight|lora_down) and a.lora_up"):
        merge_lora(weights, 1.0)
