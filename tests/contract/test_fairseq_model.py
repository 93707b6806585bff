"""The network through fairseq's doors: upstream flags, architectures, freezing, loading, moving
averages."""

import logging
from argparse import SUPPRESS, ArgumentParser, Namespace
from types import SimpleNamespace

import pytest
import torch
from golden import load_json, names

from ofa.errors import UserError
from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel

SMALL = [
    "--encoder-embed-dim=16",
    "--encoder-ffn-embed-dim=16",
    "--encoder-layers=2",
    "--decoder-layers=2",
    "--encoder-attention-heads=2",
    "--decoder-attention-heads=2",
    "--resnet-type=resnet18",
    "--resnet-width=4",
]


@pytest.fixture(scope="module")
def fairseq_model():
    import fairseq.models  # noqa: F401

    from ofa.models import fairseq_model

    return fairseq_model


@pytest.fixture(scope="module")
def parse(fairseq_model):
    """Flags of one architecture, parsed as fairseq does: no defaults, then the architecture's."""
    from fairseq.models import ARCH_CONFIG_REGISTRY

    def parse(arch: str, flags: list[str]) -> Namespace:
        parser = ArgumentParser(allow_abbrev=False)
        group = parser.add_argument_group(argument_default=SUPPRESS)
        fairseq_model.FairseqOFAModel.add_args(group)
        for name in (
            "patch-image-size",
            "orig-patch-image-size",
            "num-bins",
            "max-source-positions",
        ):
            group.add_argument(f"--{name}", type=int)
        args = parser.parse_args(flags)
        args.arch = arch
        ARCH_CONFIG_REGISTRY[arch](args)
        return args

    return parse


@pytest.fixture
def build(fairseq_model, parse):
    """A small model of these flags, for a task that has a dictionary only."""

    class Dictionary:
        def __len__(self):
            return 20

        def pad(self):
            return 1

    task = SimpleNamespace(source_dictionary=Dictionary())
    return lambda *flags: fairseq_model.FairseqOFAModel.build_model(
        parse("ofa_tiny", [*SMALL, *flags]), task
    )


@pytest.mark.parametrize("case", names("state_dict_*"))
def test_upstream_flags_give_the_recorded_arguments(parse, case):
    recorded = load_json(case)
    found = vars(parse(recorded["arch"], recorded["flags"]))
    expected = {
        name: value
        for name, value in recorded["resolved_args"].items()
        if name in found and value is not None
    }
    assert len(expected) > 50
    assert {name: found[name] for name in expected} == expected


def test_every_architecture_is_registered(fairseq_model):
    from fairseq.models import ARCH_MODEL_REGISTRY

    for arch in (
        "ofa_nano",
        "ofa_tiny",
        "ofa_medium",
        "ofa_base",
        "ofa_large",
        "ofa_huge",
        "m6_unify_large",
    ):
        assert ARCH_MODEL_REGISTRY[arch] is fairseq_model.FairseqOFAModel


def test_the_old_name_of_ofa_large_is_ofa_large(parse):
    old, new = vars(parse("m6_unify_large", [])), vars(parse("ofa_large", []))
    assert {**old, "arch": ""} == {**new, "arch": ""}


def trainable(model) -> set[str]:
    return {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}


def test_prefix_prompts_train_alone(build):
    model = build(
        "--encoder-prompt",
        "--decoder-prompt",
        "--encoder-prompt-length=3",
        "--decoder-prompt-length=3",
    )
    assert trainable(model) == {
        "encoder.encoder_prompt_encoder.embedding.weight",
        "decoder.decoder_prompt_encoder.embedding.weight",
    }


def test_adapters_train_alone_unless_the_backbone_is_asked_for(build):
    assert all(".adapter." in name for name in trainable(build("--adapter", "--adapter-dim=4")))
    model = build("--adapter", "--adapter-dim=4", "--adapter-train-backbone")
    assert {name for name, _ in model.named_parameters()} - trainable(model) == {
        "encoder.embed_tokens.weight"
    }


def test_bitfit_trains_biases_of_norms_and_feed_forward_layers(build):
    found = trainable(build("--bitfit"))
    assert "encoder.layers.0.fc1.bias" in found and "decoder.layer_norm.bias" in found
    assert all(name.endswith("bias") and ("layer_norm" in name or "fc" in name) for name in found)


def test_embeddings_can_be_frozen(build):
    model = build("--freeze-encoder-embedding")
    assert (
        not model.encoder.embed_tokens.weight.requires_grad
        and model.encoder.embed_positions.weight.requires_grad
    )


def test_heads_registered_later_train(build):
    model = build("--adapter")
    model.register_classification_head("a", 2)
    assert "classification_heads.a.out_proj.weight" in trainable(model)


def test_flags_without_effect_warn_once(build, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            build("--quant-noise-pq=0.1")
    assert caplog.text.count("--quant-noise-pq has no effect") == 1


def test_widths_that_differ_are_refused(build):
    with pytest.raises(UserError, match="--decoder-input-dim must equal"):
        build("--decoder-input-dim=8")
    with pytest.raises(UserError, match="--decoder-embed-dim 8 must equal"):
        build("--decoder-embed-dim=8")


def test_imagenet_weights_start_the_stem_and_wrong_ones_are_refused(build, tmp_path):
    weights = {
        f"{name}": torch.full_like(value, 2)
        for name, value in build().encoder.embed_images.state_dict().items()
    }
    weights |= {"fc.weight": torch.ones(3), "layer4.0.conv1.weight": torch.ones(3)}
    torch.save(weights, tmp_path / "resnet.pth")
    model = build(f"--resnet-model-path={tmp_path / 'resnet.pth'}")
    assert (model.encoder.embed_images.layer3[0].conv1.weight == 2).all()
    for other in ({"conv1.weight": torch.ones(64, 3, 7, 7)}, {"model": {}, "args": None}):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(UserError, match="other.pth: expected ImageNet weights"):
            build(f"--resnet-model-path={tmp_path / 'other.pth'}")


def test_loading_upgrades_and_refuses_like_load_into(build):
    model, weights = build(), build().state_dict()
    weights["decoder.image_position_idx"] = torch.zeros(1025, dtype=torch.long)
    model.load_state_dict(weights, strict=True, model_cfg=Namespace(arch="ofa_tiny"))
    with pytest.raises(UserError, match="--arch=ofa_base"):
        with torch.device("meta"):
            base = OFAModel(ModelConfig.from_namespace({}, "ofa_base"), 20).state_dict()
        model.load_state_dict(base)


def test_probabilities_and_targets_are_where_criterions_look(build):
    model = build()
    logits = torch.randn(2, 3, 20)
    torch.testing.assert_close(
        model.get_normalized_probs((logits, {}), log_probs=True).exp().sum(-1), torch.ones(2, 3)
    )
    assert model.get_targets({"target": 7}, None) == 7
    assert model.max_positions() == (1024, 1024)


@pytest.mark.parametrize("fp32", [True, False])
def test_moving_averages_follow_the_model(build, fp32):
    from ofa.trainer.fairseq_weights import ModelAverages

    model = build()
    config = SimpleNamespace(
        ema_decay=0.5, ema_fp32=fp32, ema_seed_model=None, ema_start_update=0, ema_update_freq=1
    )
    ema = ModelAverages(model, config)
    before = model.encoder.embed_tokens.weight.detach().clone()
    with torch.no_grad():
        model.encoder.embed_tokens.weight.add_(1)  # shared by encoder, decoder and output
        model.encoder.layer_norm.weight.add_(1)
    ema.step(model, updates=1)
    found = ema.get_model().state_dict()
    torch.testing.assert_close(found["encoder.layer_norm.weight"], torch.full((16,), 1.5))
    torch.testing.assert_close(found["decoder.output_projection.weight"], before + 0.5)
    if fp32:
        torch.testing.assert_close(
            ema.fp32_params["decoder.output_projection.weight"], before + 0.5
        )


@pytest.mark.parametrize("ours", [True, False])
def test_averages_that_a_file_holds_once_decay_once(ours):
    from fairseq.models.ema.ema import EMA

    from ofa.trainer.fairseq_weights import ModelAverages

    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    )
    model[1].weight = model[0].weight
    torch.nn.init.ones_(model[0].weight)
    config = SimpleNamespace(
        ema_decay=0.5, ema_fp32=True, ema_seed_model=None, ema_start_update=0, ema_update_freq=1
    )
    averages = (ModelAverages if ours else EMA)(model.half(), config)
    averages.build_fp32_params(dict.fromkeys(("0.weight", "1.weight"), torch.full((4, 4), 3.0)))
    averages.step(model, updates=1)
    assert all(tensor.equal(torch.full((4, 4), 2.0)) for tensor in averages.fp32_params.values())


@pytest.mark.parametrize("fp32", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16], ids=str)
def test_averages_of_all_tensors_at_once_are_those_of_fairseq_to_the_last_bit(fp32, kind):
    from fairseq.models.ema.ema import EMA

    from ofa.trainer.fairseq_weights import ModelAverages

    config = SimpleNamespace(
        ema_decay=0.9, ema_fp32=fp32, ema_seed_model=None, ema_start_update=2, ema_update_freq=1
    )
    found = []
    for averages_of in (ModelAverages, EMA):
        torch.manual_seed(5)
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3)).to(kind)
        averages = averages_of(model, config)
        for update in range(1, 6):
            for param in model.parameters():
                param.data += torch.randn(param.shape).to(kind)
            averages.step(model, updates=update)
        found.append([*averages.get_model().state_dict().values(), *averages.fp32_params.values()])
    assert all(map(torch.equal, *found)) and len(found[0]) == 4 + 4 * fp32
