"""``ofa convert``: there and back through every layout, what it refuses, and that nothing
half-good is left."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_bpe import make_bert_folder, make_gpt2_folder, make_sentencepiece_folder
from small_network import build_small

from ofa.checkpoints import convert as conversion
from ofa.checkpoints.adapt import CONSTANTS, EMBEDDINGS, network_of
from ofa.checkpoints.architecture import fields_of, image_size
from ofa.checkpoints.convert import fixed_batches, largest_differences, logits
from ofa.checkpoints.formats import LAYOUTS, unsupported_features
from ofa.checkpoints.read import read_source
from ofa.cli.main import main
from ofa.errors import UserError
from ofa.io.safe_load import load_checkpoint
from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel
from ofa.tokens.bpe import load_language

# Image stems of full width, tens of megabytes a file; tests/parity/test_layouts.py is fast.
pytestmark = pytest.mark.slow

ENTRIES = 300
UPSTREAM = dict(
    scale_attn=True,
    scale_fc=True,
    scale_heads=True,
    disable_entangle=True,
    resnet_width=64,
    encoder_ffn_embed_dim=64,
)
TASK = {
    "_name": "caption",
    "code_dict_size": 16,
    "num_bins": 8,
    "patch_image_size": 64,
    "data": "a.tsv",
    "eval_cider": True,
    "shuffle": True,
}
OUT = {
    "fairseq": "out.pt",
    "ofa": "out.safetensors",
    "huggingface": "folder",
    "mmpretrain": "out.pth",
}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("convert")


def save(path, entries: int = ENTRIES, task: dict = TASK, **switches) -> str:
    """A checkpoint as training writes it, of a network whose every tensor matters."""
    model = build_small(entries, **{**UPSTREAM, "resnet_type": "resnet18", **switches})
    if switches.get("load_checkpoint_heads"):
        model.register_classification_head("mood", 3, 16)
    state = {
        key: value.clone() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    for key, value in state.items():
        if value.is_floating_point() and not (
            value.dim() > 1 and "embed_images" in key
        ):  # deep convolutions would overflow
            value += 0.1 * torch.rand_like(value)
    for key in EMBEDDINGS:
        state[key] = state[EMBEDDINGS[0]]
    config = Namespace(**asdict(model.config), arch="ofa_tiny", _name="ofa_tiny")
    torch.save(
        {
            "args": None,
            "cfg": {"task": task, "model": config, "common": {"seed": 3}},
            "model": state,
            "optimizer_history": [{"num_updates": 5}],
            "extra_state": {},
            "last_optimizer_state": {"a": torch.ones(9)},
        },
        path,
    )
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(folder):
    return save(folder / "source.pt", resnet_type="resnet50")


@pytest.fixture(scope="module")
def small(folder):
    return save(folder / "small.pt")


def convert(source, to: str, out, *more) -> int:
    return main(["convert", str(source), "--to", to, "--out", str(out), *more])


def refused(capsys, *arguments) -> str:
    """The message of a command that fails as it should."""
    assert convert(*arguments) == 2
    return capsys.readouterr().err


def assert_same(one, other) -> None:
    one, other = read_source(one), read_source(other)
    assert one.parameters.keys() == other.parameters.keys() and len(one.parameters) > 200
    assert all(value.equal(other.parameters[key]) for key, value in one.parameters.items())
    learned = {"dropout", "load_checkpoint_heads"}
    left, right = (
        {k: v for k, v in asdict(part.config).items() if k not in learned} for part in (one, other)
    )
    assert left == right


def test_through_all_layouts_and_back(checkpoint, tmp_path, capsys):
    source = checkpoint
    for to in ("huggingface", "mmpretrain", "ofa", "huggingface", "fairseq"):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}" / OUT[to]
        assert convert(source, to, out) == 0
        assert "image and text 0, codes 0 (allowed: 0.0001)" in capsys.readouterr().out
        source = out
    assert_same(checkpoint, source)
    # what the other layouts cannot say of a task they carry along; where files lie on a machine
    # they do not
    task = load_checkpoint(source)["cfg"]["task"]
    assert {
        key: task[key] for key in ("_name", "num_bins", "code_dict_size", "patch_image_size")
    } == {"_name": "caption", "num_bins": 8, "code_dict_size": 16, "patch_image_size": 64}
    assert "data" not in task


def test_a_safetensors_checkpoint_is_one_to_all_commands(checkpoint, tmp_path, capsys):
    out = tmp_path / "a.safetensors"
    assert convert(checkpoint, "ofa", out) == 0
    content, before = load_checkpoint(out), load_checkpoint(checkpoint)
    assert content["cfg"]["task"] == TASK and content["cfg"]["common"] == {"seed": 3}
    assert content["cfg"]["model"] == before["cfg"]["model"]
    assert content["optimizer_history"][-1]["num_updates"] == 5 and content["extra_state"] == {}
    assert content["model"][EMBEDDINGS[2]].data_ptr() == content["model"][EMBEDDINGS[0]].data_ptr()
    assert not any(key.endswith(CONSTANTS) for key in content["model"])
    assert main(["checkpoint", "show", str(out), "--config"]) == 0
    assert (
        "ofa_tiny" in (shown := capsys.readouterr().out)
        and "5 updates" in shown
        and "patch_image_size = 64" in shown
    )
    assert main(["checkpoint", "diff", str(out), str(checkpoint)]) == 0
    assert main(["checkpoint", "strip", str(out), "--out", str(tmp_path / "b.pt")]) == 0
    assert_same(checkpoint, tmp_path / "b.pt")
    assert out.stat().st_mode & 0o777 == (tmp_path / "b.pt").stat().st_mode & 0o777


def test_the_file_for_upstream_has_what_its_programs_look_up(checkpoint, tmp_path):
    assert convert(checkpoint, "huggingface", tmp_path / "folder") == 0
    assert convert(tmp_path / "folder", "fairseq", tmp_path / "a.pt") == 0
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert {"args", "cfg", "model", "optimizer_history", "extra_state"} == content.keys()
    assert content["cfg"]["task"].keys() <= {
        "_name",
        "code_dict_size",
        "num_bins",
        "patch_image_size",
        "eval_cider",
    }
    assert (
        content["extra_state"]["train_iterator"]["epoch"] == 1
        and content["optimizer_history"][-1]["lr_scheduler_state"] == {}
    )
    model = SimpleNamespace(**content["cfg"]["model"])
    assert (
        model.arch,
        model.encoder_learned_pos,
        model.decoder_output_dim,
        model.adaptive_softmax_cutoff,
    ) == ("ofa_large", True, 16, None)
    upstream = load_checkpoint(checkpoint)["model"]
    assert {key: value.shape for key, value in content["model"].items()} == {
        key: value.shape for key, value in upstream.items()
    }
    assert all(
        content["model"][key].equal(value)
        for key, value in upstream.items()
        if "version" not in key
    )


@pytest.mark.parametrize("kept", EMBEDDINGS)
def test_one_of_the_three_names_of_the_embeddings_is_enough(small, tmp_path, kept):
    assert convert(small, "huggingface", tmp_path / "a") == 0
    tensors = load_file(tmp_path / "a/model.safetensors")
    assert [name for name in EMBEDDINGS if name in tensors] == [EMBEDDINGS[0]]
    tensors[kept] = tensors.pop(EMBEDDINGS[0])
    save_file(tensors, tmp_path / "a/model.safetensors")
    assert convert(tmp_path / "a", "fairseq", tmp_path / "a.pt") == 0
    assert_same(small, tmp_path / "a.pt")
    model = load_checkpoint(tmp_path / "a.pt")["model"]
    assert len({model[name].data_ptr() for name in EMBEDDINGS}) == 1


def test_a_bin_file_holds_all_three_names_and_is_read_with_prefix_and_in_parts(small, tmp_path):
    assert convert(small, "huggingface", tmp_path / "a", "--bin") == 0
    state = torch.load(tmp_path / "a/pytorch_model.bin", weights_only=True)
    assert all(name in state for name in EMBEDDINGS) and state[
        "decoder.image_position_idx"
    ].shape == (1 + 16 + 768,)
    prefixed = {f"model.{name}": value.clone() for name, value in state.items()}
    names = sorted(prefixed)
    (tmp_path / "a/pytorch_model.bin").unlink()
    weight_map = {}
    for number, part in enumerate((names[:150], names[150:])):
        torch.save(
            {name: prefixed[name] for name in part}, tmp_path / f"a/pytorch_model-{number}.bin"
        )
        weight_map |= dict.fromkeys(part, f"pytorch_model-{number}.bin")
    (tmp_path / "a/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert convert(tmp_path / "a", "ofa", tmp_path / "a.pt") == 0
    assert_same(small, tmp_path / "a.pt")


def test_a_bare_or_wrapped_file_of_mmpretrain_is_read_by_its_shapes(checkpoint, tmp_path):
    assert convert(checkpoint, "mmpretrain", tmp_path / "a.pth") == 0
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert content["meta"]["model"]["encoder_cfg"]["embed_images"] == {
        "type": "OFAResNet",
        "depth": 50,
    }
    torch.save(content["state_dict"], tmp_path / "bare.pth")
    torch.save(
        {
            "state_dict": {f"module.{k}": v for k, v in content["state_dict"].items()},
            "meta": {"epoch": 3},
        },
        tmp_path / "b.pth",
    )
    for name in ("bare.pth", "b.pth"):
        assert convert(tmp_path / name, "fairseq", tmp_path / "a.pt", "--force") == 0
        assert_same(checkpoint, tmp_path / "a.pt")


def test_an_upstream_file_without_options_is_read_by_its_shapes(small, tmp_path, caplog):
    torch.save(load_checkpoint(small)["model"], tmp_path / "bare.pt")
    assert convert(tmp_path / "bare.pt", "ofa", tmp_path / "a.safetensors") == 0
    assert "--disable-entangle" in caplog.text
    assert_same(small, tmp_path / "a.safetensors")
    assert load_checkpoint(tmp_path / "a.safetensors")["cfg"]["task"] == {
        "_name": "caption",
        "code_dict_size": 8192,
        "num_bins": 1000,
        "patch_image_size": 256,
    }


def test_frozen_batch_norms_get_the_counters_that_other_layouts_have(folder, tmp_path):
    source = save(folder / "frozen.pt", freeze_resnet=True)
    assert convert(source, "huggingface", tmp_path / "a") == 0
    tensors = load_file(tmp_path / "a/model.safetensors")
    assert tensors["encoder.embed_images.layer3.1.bn3.num_batches_tracked"].tolist() == 0
    assert convert(tmp_path / "a", "ofa", tmp_path / "a.safetensors") == 0
    found = read_source(tmp_path / "a.safetensors").parameters
    assert all(value.equal(found[key]) for key, value in read_source(source).parameters.items())


def test_moving_averages_are_taken_when_asked_for(small, tmp_path, capsys):
    content = load_checkpoint(small)
    name = "encoder.layers.0.fc1.bias"
    content["extra_state"] = {
        "ema": {
            **{key: value.clone() for key, value in content["model"].items()},
            name: content["model"][name] + 1,
        }
    }
    torch.save(content, tmp_path / "source.pt")
    assert convert(tmp_path / "source.pt", "ofa", tmp_path / "a.safetensors", "--ema") == 0
    averages = load_checkpoint(tmp_path / "a.safetensors")["model"]
    assert averages[name].equal(content["model"][name] + 1)
    # in the source each name has a copy
    assert len({averages[key].data_ptr() for key in EMBEDDINGS}) == 1
    capsys.readouterr()
    assert convert(tmp_path / "source.pt", "huggingface", tmp_path / "b") == 0
    assert "--ema takes these" in capsys.readouterr().out
    assert_same(tmp_path / "b", small)
    assert "no moving averages; leave --ema out" in refused(
        capsys, tmp_path / "b", "ofa", tmp_path / "c.pt", "--ema"
    )
    assert "--store-ema" in refused(capsys, small, "ofa", tmp_path / "c.pt", "--ema")


def test_half_precision_stays_half(small, tmp_path):
    content = load_checkpoint(small)
    content["model"] = {
        key: value.half() if value.is_floating_point() else value
        for key, value in content["model"].items()
    }
    torch.save(content, tmp_path / "half.pt")
    assert convert(tmp_path / "half.pt", "huggingface", tmp_path / "a") == 0
    assert (
        load_file(tmp_path / "a/model.safetensors")["encoder.layers.0.fc1.weight"].dtype
        == torch.float16
    )
    assert json.loads((tmp_path / "a/config.json").read_text())["torch_dtype"] == "float16"


# --- what is refused
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "switches, words",
    [
        (dict(adapter=True, adapter_dim=4), "adapters (--adapter)"),
        (dict(encoder_prompt=True, encoder_prompt_length=3), "prompts (--encoder-prompt"),
        (dict(load_checkpoint_heads=True), "the classification head mood"),
        (dict(scale_resids=True), "--scale-resids"),
        (dict(sync_bn=True), "--sync-bn"),
        (dict(disable_entangle=False), "no --disable-entangle"),
        (dict(interpolate_position=True), "--interpolate-position"),
        (dict(scale_heads=False), "no --scale-heads"),
        (dict(resnet_width=8), "--resnet-width 8 (64 there)"),
        (dict(num_image_types=2), "--num-image-types 2 (1 there)"),
    ],
)
def test_what_no_other_layout_holds_is_named(switches, words, tmp_path, capsys):
    source = save(tmp_path / "source.pt", **switches)
    message = refused(capsys, source, "huggingface", tmp_path / "a")
    assert "has no place for" in message and words in message and "--to ofa" in message
    assert os.listdir(tmp_path) == ["source.pt"]
    held = read_source(source)
    found = {
        name: " ".join(unsupported_features(layout, held.config, held.weights))
        for name, layout in LAYOUTS.items()
    }
    assert words in found["mmpretrain"] and not found["ofa"]
    assert (words in found["fairseq"]) == (
        "resnet_width" in switches or "num_image_types" in switches
    )
    if {"adapter", "encoder_prompt", "load_checkpoint_heads"} & switches.keys():
        # this project's holds it all
        assert convert(source, "ofa", tmp_path / "a.safetensors") == 0
        assert_same(source, tmp_path / "a.safetensors")


def test_a_vision_transformer_stays_here():
    config = ModelConfig(
        **{**UPSTREAM, "resnet_type": "ViT-B/16", "encoder_layers": 1, "decoder_layers": 1}
    )
    with torch.device("meta"):
        weights = OFAModel(config, ENTRIES).state_dict()
    assert fields_of(weights)["resnet_type"] == "ViT-B/16"
    found = {
        name: " ".join(unsupported_features(layout, config, weights))
        for name, layout in LAYOUTS.items()
    }
    assert all("--resnet-type ViT-B/16" in found[name] for name in ("huggingface", "mmpretrain"))
    assert not found["ofa"] and not found["fairseq"]


@pytest.mark.parametrize(
    "to, switches, words",
    [
        ("huggingface", dict(scale_fc=False), "no --scale-fc"),
        ("huggingface", dict(attn_scale_factor=3.0), "--attn-scale-factor 3.0"),
        ("huggingface", dict(max_target_positions=512), "--max-target-positions"),
        ("huggingface", dict(activation_fn="gelu_accurate"), "--activation-fn gelu_accurate"),
        ("mmpretrain", dict(scale_attn=False, scale_fc=False), "--scale-attn"),
        ("mmpretrain", {}, "--resnet-type resnet18"),
        ("mmpretrain", dict(encoder_ffn_embed_dim=32), "--encoder-ffn-embed-dim 32 (64 there)"),
        ("mmpretrain", dict(activation_fn="relu"), "--activation-fn relu"),
    ],
)
def test_what_one_layout_does_not_hold_is_named(to, switches, words, tmp_path, capsys):
    source = save(tmp_path / "source.pt", **switches)
    assert words in refused(capsys, source, to, tmp_path / OUT[to])
    assert sorted(os.listdir(tmp_path)) == ["source.pt"]


def test_two_processes_do_not_write_the_same_result_at_once(small, tmp_path, capsys):
    hold = (
        "import sys; from ofa.io.folder_lock import lock_folder; lock = lock_folder(*sys.argv[1:]);"
        " print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path), ".a.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert f"in use by process {holder.pid}" in refused(
            capsys, small, "huggingface", tmp_path / "a"
        )
        assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
        holder.communicate(b"\n")
    assert convert(small, "huggingface", tmp_path / "a") == 0 and [
        path.name for path in tmp_path.iterdir()
    ] == ["a"]


@pytest.mark.parametrize("to", OUT)
def test_a_result_that_computes_other_numbers_is_not_left(
    small, checkpoint, to, tmp_path, capsys, monkeypatch
):
    written = conversion.written_tensors

    def wrong(model, layout):
        tensors = written(model, layout)
        name = next(name for name in tensors if "decoder.layers.0.fc2.weight" in name)
        return {**tensors, name: tensors[name].flip(0)}

    monkeypatch.setattr(conversion, "written_tensors", wrong)
    message = refused(capsys, checkpoint, to, tmp_path / OUT[to])
    assert (
        "differ by up to" in message
        and "image and text" in message
        and "nothing is left" in message
    )
    assert not list(tmp_path.iterdir())
    (tmp_path / OUT[to]).mkdir() if to == "huggingface" else (tmp_path / OUT[to]).write_text("old")
    refused(capsys, checkpoint, to, tmp_path / OUT[to], "--force")
    assert os.listdir(tmp_path) == [OUT[to]]
    assert to == "huggingface" or (tmp_path / OUT[to]).read_text() == "old"


def test_a_lost_tensor_that_the_batch_does_not_see_is_found(small, tmp_path, capsys, monkeypatch):
    written = conversion.written_tensors

    def wrong(model, layout):
        tensors = written(model, layout)
        name = "encoder.embed_positions.weight"
        return {**tensors, name: torch.cat([tensors[name][:-1], tensors[name][-1:] + 1])}

    monkeypatch.setattr(conversion, "written_tensors", wrong)
    assert "1 differ (encoder.embed_positions.weight)" in refused(
        capsys, small, "huggingface", tmp_path / "a"
    )
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_prove_nothing(small, tmp_path, capsys):
    content = load_checkpoint(small)
    content["model"]["encoder.layers.0.fc1.bias"][0] = float("nan")
    torch.save(content, tmp_path / "source.pt")
    assert "NaN" in refused(capsys, tmp_path / "source.pt", "ofa", tmp_path / "a.pt")
    assert os.listdir(tmp_path) == ["source.pt"]


def test_configurations_and_tensors_of_different_models_are_told_apart(small, tmp_path, capsys):
    assert convert(small, "huggingface", tmp_path / "a") == 0
    config = json.loads((tmp_path / "a/config.json").read_text())

    def with_config(**changes) -> str:
        (tmp_path / "a/config.json").write_text(json.dumps({**config, **changes}))
        return refused(capsys, tmp_path / "a", "ofa", tmp_path / "a.pt")

    assert "encoder_embed_dim 32, its tensors say 16" in with_config(d_model=32)
    assert "vocab_size 59457, its tensors have 300" in with_config(vocab_size=59457)
    assert "resnet_type resnet101" in with_config(resnet_type="resnet101")
    assert "model_type 'ofa'), found 'bart'" in with_config(model_type="bart")
    assert "use_ofasys" in with_config(use_ofasys=True)
    (tmp_path / "a/config.json").write_text("{")
    assert "JSON" in refused(capsys, tmp_path / "a", "ofa", tmp_path / "a.pt")
    (tmp_path / "a/config.json").unlink()
    missing = refused(capsys, tmp_path / "a/model.safetensors", "ofa", tmp_path / "a.pt")
    assert "config.json beside the weights" in missing
    assert missing.count("model.safetensors") == 1
    (tmp_path / "a/config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "a/model.safetensors")
    save_file(
        {**tensors, EMBEDDINGS[2]: tensors[EMBEDDINGS[0]] + 1}, tmp_path / "a/model.safetensors"
    )
    assert "one table in this network" in refused(capsys, tmp_path / "a", "ofa", tmp_path / "a.pt")
    save_file(
        {name: value for name, value in tensors.items() if name not in EMBEDDINGS},
        tmp_path / "a/model.safetensors",
    )
    assert "table of token embeddings" in refused(capsys, tmp_path / "a", "ofa", tmp_path / "a.pt")
    mixed = {**tensors, "encoder.layers.0.attn_ln.weight": torch.ones(16)}
    save_file(mixed, tmp_path / "a/model.safetensors")
    assert "mixed" in refused(capsys, tmp_path / "a", "ofa", tmp_path / "a.pt")
    tensors.pop("decoder.layers.1.cross_attn.c_attn")
    save_file(tensors, tmp_path / "a/model.safetensors")
    assert "decoder.layers.1.encoder_attn.c_attn" in refused(
        capsys, tmp_path / "a", "ofa", tmp_path / "a.pt"
    )


def test_files_that_are_no_model_are_named(small, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "model.safetensors or pytorch_model.bin" in refused(
        capsys, tmp_path / "empty", "ofa", tmp_path / "a.pt"
    )
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "other.pt")
    assert "found layer.weight" in refused(capsys, tmp_path / "other.pt", "ofa", tmp_path / "a.pt")
    tuned = {
        "model": {"decoder.layers.0.encoder_attn.q_proj.lora_up": torch.ones(2)},
        "light_tuning": {"base": {"path": "a.pt"}},
    }
    torch.save(tuned, tmp_path / "light.pt")
    assert "ofa checkpoint merge" in refused(
        capsys, tmp_path / "light.pt", "ofa", tmp_path / "a.pt"
    )
    assert "no such file" in refused(capsys, tmp_path / "none.pt", "ofa", tmp_path / "a.pt")
    assert convert(small, "ofa", tmp_path / "a.safetensors") == 0
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "damaged or incomplete" in refused(
        capsys, tmp_path / "a.safetensors", "ofa", tmp_path / "a.pt"
    )


class Malicious:
    def __reduce__(self):
        return os.system, ("touch ofa-was-here",)


def test_no_code_of_a_file_runs(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert convert(small, "huggingface", tmp_path / "a", "--bin") == 0
    state = torch.load(tmp_path / "a/pytorch_model.bin")
    torch.save({**state, "extra": Malicious()}, tmp_path / "a/pytorch_model.bin")
    assert "could run code" in refused(capsys, tmp_path / "a", "ofa", tmp_path / "a.pt")
    assert os.listdir(tmp_path) == ["a"]


def test_wrong_command_lines_are_told_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "a.pt").write_text("there")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("there")
    for to, out, more, words in (
        ("ofa", "a.pt", [], "choose another, or replace it by --overwrite"),
        ("huggingface", "full", [], "expected a new folder"),
        ("huggingface", "a.pt", [], "expected a folder"),
        ("ofa", "full", ["--force"], "expected a file *.safetensors or *.pt"),
        ("fairseq", "b.safetensors", [], "read no safetensors"),
        ("mmpretrain", "b.safetensors", [], "read no safetensors"),
        ("ofa", "b.safetensors", ["--bin"], "--bin: expected with --to huggingface"),
    ):
        assert words in refused(capsys, tmp_path / "none", to, tmp_path / out, *more)


def test_a_task_is_for_files_that_name_none(small, tmp_path, capsys):
    assert "is of task 'caption'" in refused(
        capsys, small, "ofa", tmp_path / "a.pt", "--task", "vqa_gen"
    )
    torch.save(load_checkpoint(small)["model"], tmp_path / "bare.pt")
    options = [
        "--task",
        "vqa",
        "--num-bins",
        "8",
        "--code-dict-size",
        "16",
        "--bpe-dir",
        str(tmp_path),
    ]
    assert convert(tmp_path / "bare.pt", "ofa", tmp_path / "a.pt", *options) == 0
    assert load_checkpoint(tmp_path / "a.pt")["cfg"]["task"] == {
        "_name": "vqa_gen",
        "num_bins": 8,
        "code_dict_size": 16,
        "bpe_dir": str(tmp_path),
        "patch_image_size": 256,
    }
    options[1] = line = "[image] what? -> [text]"
    assert convert(tmp_path / "bare.pt", "ofa", tmp_path / "b.pt", *options) == 0
    task = load_checkpoint(tmp_path / "b.pt")["cfg"]["task"]
    assert task["_name"] == "template" and task["template"] == line


# --- the vocabulary of a Hugging Face folder
# ----------------------------------------------------------------------


def test_the_tokenizers_files_have_the_ids_of_the_model(tmp_path, capsys, caplog):
    bpe, vocabulary = load_language(make_gpt2_folder(tmp_path / "gpt2"), None, 16, 8)
    source = save(tmp_path / "source.pt", len(vocabulary))
    assert convert(source, "huggingface", tmp_path / "a", "--bpe-dir", str(tmp_path / "gpt2")) == 0
    ids = json.loads((tmp_path / "a/vocab.json").read_text())
    assert (
        len(ids) == vocabulary.mask + 1
        and ids["<mask>"] == vocabulary.mask
        and ids["<s>"] == 0
        and ids["madeupword0000"] < ids["<mask>"]
    )
    encoder = json.loads((tmp_path / "gpt2/encoder.json").read_text())
    assert all(ids[piece] == vocabulary.index(str(number)) for piece, number in encoder.items())
    assert [ids["Ġred"]] == vocabulary.ids(bpe.encode(" red"))
    assert (tmp_path / "a/merges.txt").read_text() == (tmp_path / "gpt2/vocab.bpe").read_text()
    assert "16 codes and 8 bins" in caplog.text  # loaders of that layout append others
    message = refused(
        capsys,
        source,
        "huggingface",
        tmp_path / "b",
        "--bpe-dir",
        str(tmp_path / "gpt2"),
        "--num-bins",
        "9",
    )
    assert f"the model has {len(vocabulary)}" in message and not (tmp_path / "b").exists()


def test_a_bert_vocabulary_is_written_line_by_line_and_sentencepiece_not_at_all(tmp_path, caplog):
    for make, files in ((make_bert_folder, ["vocab.txt"]), (make_sentencepiece_folder, [])):
        _, vocabulary = load_language(make(tmp_path / make.__name__), None, 16, 8)
        source = save(
            tmp_path / f"{make.__name__}.pt",
            len(vocabulary),
            {**TASK, "bpe_dir": str(tmp_path / make.__name__)},
        )
        out = tmp_path / f"{make.__name__}.folder"
        assert convert(source, "huggingface", out) == 0
        assert sorted(os.listdir(out)) == sorted(["config.json", "model.safetensors", *files])
    lines = (tmp_path / "make_bert_folder.folder/vocab.txt").read_text().split("\n")[:-1]
    assert (
        lines == load_language(tmp_path / "make_bert_folder", None, 16, 8)[1].symbols[: len(lines)]
        and lines[-1] == "<mask>"
    )
    assert "sentencepiece" in caplog.text


# --- parts
# --------------------------------------------------------------------------------------------------


def test_a_conversion_replaces_the_weights_of_the_one_before(small, tmp_path):
    assert convert(small, "huggingface", tmp_path / "a", "--bin") == 0
    kept = ["README.md", "model.safetensors.orig", "pytorch_model.bin.backup"]
    for name in [*kept, "pytorch_model.bin.index.json"]:
        (tmp_path / "a" / name).write_text("mine")
    assert convert(small, "huggingface", tmp_path / "a", "--force") == 0
    assert sorted(os.listdir(tmp_path / "a")) == sorted(["config.json", "model.safetensors", *kept])


def test_the_fixed_batch_has_padding_a_missing_image_and_codes():
    config = ModelConfig(
        **{**UPSTREAM, "image_bucket_size": 2, "code_image_size": 8, "max_source_positions": 5}
    )
    batches = fixed_batches(config, ENTRIES)
    text, codes = batches["image and text"], batches["codes"]
    assert text["patch_images"].shape == (2, 3, 32, 32) and text["src_tokens"].shape == (2, 5)
    assert (
        (text["src_tokens"] == 1).any()
        and not (text["src_tokens"][0] == 1).any()
        and text["patch_masks"].tolist() == [True, False]
    )
    assert codes["code_masks"].all() and codes["prev_output_tokens"].shape == (2, 2)
    again = fixed_batches(config, ENTRIES)
    assert again["codes"]["prev_output_tokens"].equal(codes["prev_output_tokens"])


def test_every_part_of_the_network_shows_in_the_logits(small):
    """The proof would find any tensor that got lost on the way, but for rows that the batch does
    not look up."""
    source = read_source(small)
    expected = logits(network_of(source), ENTRIES)
    names = [
        "encoder.layers.1.attn_ln.weight",
        "decoder.layers.0.cross_attn_ln.bias",
        "decoder.code_layernorm_embedding.weight",
        "encoder.embed_images.layer2.0.bn1.running_mean",
        "encoder.layers.0.self_attn.c_attn",
        "decoder.cross_pos_q_linear.weight",
        "encoder.type_embedding.weight",
        "decoder.image_rel_pos_table_list.1.weight",
    ]
    model, generator = network_of(source), torch.Generator().manual_seed(1)
    for name in names:
        tensor = model.state_dict()[name]
        added = torch.rand(tensor.shape, generator=generator)
        tensor.add_(added)
        assert max(largest_differences(expected, logits(model, ENTRIES)).values()) > 1e-3, name
        tensor.sub_(added)


# ------------------------------------------------------------------------------------------------
# image size


@pytest.mark.parametrize(
    "arch, size",
    [
        ("ofa_tiny", 256),
        ("ofa_medium", 256),
        ("ofa_base", 384),
        ("ofa_large", 480),
        ("ofa_huge", 480),
    ],
)
def test_every_architecture_has_the_image_size_of_its_pretraining(arch, size):
    with torch.device("meta"):
        weights = OFAModel(ModelConfig.from_namespace({}, arch), 10).state_dict()
    assert image_size(weights) == (size, arch, True)


@pytest.mark.parametrize("width, size", [(16, 256), (640, 256), (800, 384), (2048, 480)])
def test_a_network_of_other_sizes_takes_the_one_of_the_next_narrower_architecture(width, size):
    found = image_size({EMBEDDINGS[0]: torch.zeros(1, width, device="meta")})
    assert found[0] == size and not found[2]


@pytest.fixture(scope="module")
def sizeless(folder):
    """A network whose file stores no image size."""
    return save(
        folder / "sizeless.pt",
        task={key: value for key, value in TASK.items() if key != "patch_image_size"},
        resnet_type="resnet50",
    )


@pytest.mark.parametrize("to", ["fairseq", "ofa", "huggingface", "mmpretrain"])
def test_an_image_size_that_is_not_stored_is_inferred_stored_and_printed(
    sizeless, to, tmp_path, capsys
):
    assert convert(sizeless, to, tmp_path / OUT[to]) == 0
    printed = capsys.readouterr()
    assert (
        "images of 256 x 256 pixels, as ofa_tiny was pretrained" in printed.out
        and "--patch-image-size" in printed.out
    )
    assert read_source(tmp_path / OUT[to]).task["patch_image_size"] == 256


def test_a_given_image_size_is_stored(sizeless, checkpoint, tmp_path, capsys):
    for source in (sizeless, checkpoint):
        assert (
            convert(
                source, "ofa", tmp_path / "a.safetensors", "--patch-image-size", "320", "--force"
            )
            == 0
        )
        assert "images of 320 x 320 pixels, as --patch-image-size says" in capsys.readouterr().out
        assert read_source(tmp_path / "a.safetensors").task["patch_image_size"] == 320
    assert convert(checkpoint, "ofa", tmp_path / "b.safetensors") == 0
    assert f"images of 64 x 64 pixels, as {checkpoint} says" in capsys.readouterr().out


def test_no_image_size_below_a_patch_is_stored(sizeless, tmp_path, capsys):
    assert "expected an integer of at least 16, found 0" in refused(
        capsys, sizeless, "ofa", tmp_path / "a.pt", "--patch-image-size", "0"
    )


@pytest.mark.parametrize(
    "weight_map", [{"a": "../other.bin"}, {"a": "/etc/passwd"}, {"a": 5}, {}, ["a"], None]
)
def test_parts_of_a_folder_lie_in_it(tmp_path, weight_map):
    (tmp_path / "model").mkdir()
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.bin")
    (tmp_path / "model/pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )
    words = (
        r"index.json: expect(s the name of a file below|ed 'weight_map')|model/5: expected a"
        r" checkpoint, found no such file"
    )
    with pytest.raises(UserError, match=words):
        read_source(tmp_path / "model")
