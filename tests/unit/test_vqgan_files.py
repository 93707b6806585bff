"""``model.yaml`` and ``last.ckpt`` of a VQGAN: loaded as data, and one message for everything
that does not fit."""

import copy
import sys
import types

import pytest
import torch
import yaml
from small_tokenizer import drawn

from ofa.errors import UserError
from ofa.models.image_tokenizer.codec import encode_images, image_encoder, load_image_tokenizer
from ofa.models.image_tokenizer.vqgan import VQGAN, config_of

DDCONFIG = {
    "double_z": False,
    "z_channels": 32,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [32],
    "dropout": 0.0,
}
MODEL = {
    "model": {
        "base_learning_rate": 4.5e-06,
        "target": "taming.models.vqgan.GumbelVQ",
        "params": {
            "ddconfig": DDCONFIG,
            "n_embed": 16,
            "embed_dim": 32,
            "kl_weight": 1e-8,
            "temperature_scheduler_config": {"target": "no.such.module"},
            "lossconfig": {"target": "no.such.module"},
        },
    }
}


def write(folder, change_config=None, change_weights=None):
    """A folder as its authors ship it. ``change_*`` alter the parsed file."""
    torch.manual_seed(1)
    state = VQGAN(config_of(MODEL, "")).state_dict()
    state["loss.discriminator.main.0.weight"] = torch.zeros(2)
    checkpoint = {"epoch": 3, "global_step": 7, "callbacks": {}, "state_dict": state}
    content = copy.deepcopy(MODEL)
    if change_config:
        change_config(content["model"]["params"])
    if change_weights:
        change_weights(checkpoint["state_dict"])
    (folder / "model.yaml").write_text(yaml.safe_dump(content))
    torch.save(checkpoint, folder / "last.ckpt")
    return folder


def test_a_folder_is_loaded_without_its_loss_networks_and_import_paths(tmp_path):
    tokenizer = load_image_tokenizer(write(tmp_path))
    assert (tokenizer.num_codes, tokenizer.factor, tokenizer.training) == (16, 2, False)
    codes = encode_images(tokenizer, [drawn(0, 32)])
    assert codes.shape == (1, 16, 16)
    assert torch.equal(codes, encode_images(tokenizer, [drawn(0, 32)])), (
        "the same image, the same codes"
    )


def test_drawn_codes_depend_on_the_seed_alone(tmp_path):
    tokenizer = load_image_tokenizer(write(tmp_path))
    found = []
    for seed in (1, 1, 2):
        tokenizer.generator = torch.Generator().manual_seed(seed)
        found.append(encode_images(tokenizer, [drawn(0, 32)]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_what_is_drawn_for_an_image_does_not_depend_on_those_before_it(tmp_path):
    encode = image_encoder(load_image_tokenizer(write(tmp_path)), seed=1)
    image = drawn(0, 32)
    first = encode([image], 5)
    encode([image], 6)
    assert torch.equal(encode([image], 5), first) and not torch.equal(encode([image], 6), first)


def codebook(weights):
    weights["quantize.embed.weight"] = torch.zeros(8192, 256)


def other_class(weights):
    weights["quantize.embedding.weight"] = weights.pop("quantize.embed.weight")


@pytest.mark.parametrize(
    "config, weights, message",
    [
        (lambda p: p.update(n_embed=8192), None, "a codebook of 8192 codes with 32 numbers each"),
        (
            None,
            codebook,
            "a codebook of 16 codes with 32 numbers each, as n_embed and embed_dim of",
        ),
        (None, lambda w: w.pop("encoder.conv_in.bias"), "1 are missing (encoder.conv_in.bias)"),
        (None, lambda w: w.update(extra=torch.zeros(1)), "1 are of another network (extra)"),
        (
            None,
            other_class,
            (
                "1 are missing (quantize.embed.weight) and 1 are of another network"
                " (quantize.embedding.weight)"
            ),
        ),
        (
            lambda p: p["ddconfig"].update(ch=64),
            None,
            "expected encoder.conv_in.weight of shape [64, 3, 3, 3]",
        ),
        (
            lambda p: p["ddconfig"].update(double_z=True),
            None,
            "found double_z: true (a continuous autoencoder)",
        ),
        (
            lambda p: p.update(embed_dim=16),
            None,
            "expected embed_dim equal to z_channels (32), as GumbelVQ needs, found 16",
        ),
        (lambda p: p.pop("n_embed"), None, "expected n_embed as an integer, found None"),
        (
            lambda p: p.pop("ddconfig"),
            None,
            "expected model.params.ddconfig (the description of a VQGAN), found none",
        ),
        (
            lambda p: p["ddconfig"].update(ch_mult=2),
            None,
            "expected ch_mult as a list of integers, found 2",
        ),
        (
            lambda p: p["ddconfig"].update(ch_mult=[]),
            None,
            "expected at least one number in ch_mult, found none",
        ),
        (lambda p: p["ddconfig"].update(ch=20), None, "expected ch as a multiple of 32, found 20"),
        (
            lambda p: p["ddconfig"].update(out_ch=1),
            None,
            "expected images with 3 channels (in_channels, out_ch), found 3 and 1",
        ),
        (
            lambda p: p["ddconfig"].update(attn_type="linear"),
            None,
            "expected attn_type: vanilla, found linear",
        ),
    ],
)
def test_what_does_not_fit_has_one_message(tmp_path, config, weights, message):
    with pytest.raises(UserError) as error:
        load_image_tokenizer(write(tmp_path, config, weights))
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_another_class_is_named(tmp_path):
    content = copy.deepcopy(MODEL)
    content["model"]["target"] = "ldm.models.autoencoder.AutoencoderKL"
    with pytest.raises(
        UserError, match="expected a network with codes, GumbelVQ or VQModel .* found AutoencoderKL"
    ):
        config_of(content, "model.yaml")


def test_without_a_class_the_loss_weight_tells_the_kind():
    content = copy.deepcopy(MODEL)
    del content["model"]["target"]
    assert config_of(content, "").kind == "GumbelVQ"
    del content["model"]["params"]["kl_weight"]
    assert config_of(content, "").kind == "VQModel"


def test_classes_of_lightning_in_the_checkpoint_are_names_only(tmp_path, monkeypatch):
    """Lightning kept the states of callbacks by their classes; it need not be installed."""
    module = types.ModuleType("pytorch_lightning.callbacks")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": module.__name__})
    write(tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt")
    checkpoint["callbacks"] = {module.ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}}
    checkpoint["hyper_parameters"] = module.AttributeDict(n_embed=16)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save(checkpoint, tmp_path / "last.ckpt")
    assert load_image_tokenizer(tmp_path).num_codes == 16


def test_code_in_the_files_is_never_run(tmp_path):
    write(tmp_path)
    (tmp_path / "model.yaml").write_text("!!python/object/apply:os.system [touch /tmp/never]")
    with pytest.raises(UserError, match="model.yaml: expected YAML with plain values only"):
        load_image_tokenizer(tmp_path)
    write(tmp_path)
    torch.save({"state_dict": {}, "callbacks": pytest.raises}, tmp_path / "last.ckpt")
    with pytest.raises(
        UserError, match="last.ckpt: expected tensors and settings only, found the class"
    ):
        load_image_tokenizer(tmp_path)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    write(tmp_path)
    data = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(data[: len(data) // 2])
    with pytest.raises(
        UserError, match="last.ckpt: expected a checkpoint, found a damaged or incomplete file"
    ):
        load_image_tokenizer(tmp_path)
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises(
        UserError,
        match="last.ckpt: expected the weights that belong to .*model.yaml, found no such file",
    ):
        load_image_tokenizer(tmp_path)
