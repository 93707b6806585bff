"""Checkpoints of every age are read as data, and nothing in them runs."""

import argparse
import enum
import io
import json
import os
import pickle
import random
import sys
import types
import zipfile

import pytest
import torch

from ofa.checkpoints.read import Checkpoint, read
from ofa.errors import UserError
from ofa.io.checkpoint_files import METADATA_KEY
from ofa.io.safe_load import load_checkpoint, restricted_pickle
from ofa.io.tensor_files import to_builtins, write_tensors


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/ofa-was-here",)


@pytest.fixture
def foreign_classes(monkeypatch):
    """Classes as fairseq defines them, pickled under their names; gone again when the file is
    read."""

    def define(module: str, name: str, bases=(), body=None):
        made = type(name, bases, body or {}) if not isinstance(body, type) else body
        made.__module__, made.__qualname__ = module, name
        home = sys.modules.get(module)
        if home is None or not hasattr(home, "__file__"):
            home = types.ModuleType(module)
            monkeypatch.setitem(sys.modules, module, home)
        monkeypatch.setattr(home, name, made, raising=False)
        return made

    return define


def save(tmp_path, content, **options) -> str:
    torch.save(content, tmp_path / "a.pt", **options)
    return str(tmp_path / "a.pt")


def weights() -> dict:
    return {"encoder.embed_tokens.weight": torch.arange(6.0).view(3, 2)}


@pytest.mark.parametrize("new_format", [True, False])
def test_an_old_checkpoint_with_a_namespace_is_read(tmp_path, new_format):
    args = argparse.Namespace(arch="ofa_tiny", scale_attn=True, patch_image_size=384)
    path = save(
        tmp_path,
        {"args": args, "model": weights(), "optimizer_history": [{"num_updates": 3}]},
        _use_new_zipfile_serialization=new_format,
    )
    checkpoint = load_checkpoint(path)
    assert Checkpoint("a.pt", checkpoint).options == vars(args)
    assert torch.equal(
        Checkpoint("a.pt", checkpoint).weights["encoder.embed_tokens.weight"],
        weights()["encoder.embed_tokens.weight"],
    )


def test_a_newer_checkpoint_with_cfg_is_read(tmp_path):
    model = argparse.Namespace(_name="ofa_base", scale_heads=True)
    cfg = {
        "task": {"_name": "caption", "patch_image_size": 480},
        "model": model,
        "common": {"seed": 7},
    }
    found = read(save(tmp_path, {"args": None, "cfg": cfg, "model": weights()})).options
    assert (found["arch"], found["patch_image_size"], found["scale_heads"]) == (
        "ofa_base",
        480,
        True,
    )


def test_omegaconf_and_fairseq_settings_become_plain_data(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    cfg = omegaconf.OmegaConf.create(
        {"model": {"_name": "ofa_tiny", "adam_betas": [0.9, 0.999]}, "common": {"fp16": True}}
    )
    checkpoint = load_checkpoint(save(tmp_path, {"cfg": cfg, "model": weights()}))
    assert checkpoint["cfg"] == {
        "model": {"_name": "ofa_tiny", "adam_betas": [0.9, 0.999]},
        "common": {"fp16": True},
    }


def test_enums_and_dataclasses_of_fairseq_become_plain_data(tmp_path, foreign_classes):
    choice = enum.Enum("DDP_BACKEND_CHOICES", {"c10d": "c10d", "legacy_ddp": "legacy_ddp"})
    choice = foreign_classes("fairseq_made_up", "x") and choice
    choice.__module__ = "fairseq.dataclass.constants_made_up"
    foreign_classes("fairseq.dataclass.constants_made_up", "DDP_BACKEND_CHOICES", body=choice)
    config = foreign_classes("fairseq.dataclass.configs_made_up", "CommonConfig")()
    config.seed, config.backend = 7, choice.legacy_ddp
    path = save(tmp_path, {"cfg": {"common": config, "backend": choice.c10d}, "model": weights()})
    checkpoint = load_checkpoint(path)
    assert checkpoint["cfg"] == {"common": {"seed": 7, "backend": "legacy_ddp"}, "backend": "c10d"}


def test_ema_weights_come_first_when_asked_for(tmp_path):
    last, ema, exact = ({"encoder.a": torch.full((2,), value)} for value in (1.0, 2.0, 3.0))
    extra = {
        "ema": ema,
        "ema_fp32_params": exact,
        "metrics": [(0, "x", "AverageMeter", {"val": 1.0})],
    }
    checkpoint = load_checkpoint(
        save(tmp_path, {"model": {**last, "encoder.b": torch.ones(1)}, "extra_state": extra})
    )
    assert Checkpoint("a.pt", checkpoint).weights["encoder.a"][0] == 1
    assert Checkpoint("a.pt", checkpoint, ema=True).weights["encoder.a"][0] == 3
    del checkpoint["extra_state"]["ema_fp32_params"]
    assert Checkpoint("a.pt", checkpoint, ema=True).weights["encoder.a"][0] == 2
    assert "encoder.b" in Checkpoint("a.pt", checkpoint, ema=True).weights


def test_a_checkpoint_without_ema_says_so():
    with pytest.raises(UserError, match="no EMA weights"):
        _ = Checkpoint("a.pt", {"model": weights()}, ema=True).weights


@pytest.mark.parametrize("new_format", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_by_name(tmp_path, new_format):
    path = save(
        tmp_path,
        {"model": weights(), "cfg": Malicious()},
        _use_new_zipfile_serialization=new_format,
    )
    with pytest.raises(UserError, match=r"a\.pt.*posix\.system"):
        load_checkpoint(path)
    assert not os.path.exists("/tmp/ofa-was-here")


@pytest.mark.parametrize(
    "module, name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("fairseq.utils", "eval"),
        ("torch.serialization", "load"),
        ("subprocess", "Popen"),
        ("models", "open"),
    ],
)
def test_functions_by_any_name_are_refused(tmp_path, module, name):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({}))
    attack = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."
    with pytest.raises(UserError, match=f"{module}.{name}"):
        restricted_pickle("a.pt").load(io.BytesIO(attack))


@pytest.mark.parametrize(
    "changed", ["argparse Namespace", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"]
)
def test_a_file_that_would_change_our_own_classes_is_refused(tmp_path, changed):
    """BUILD may set any attribute of anything that a file may name; ``__eq__`` would stay
    changed after loading."""
    module, name = changed.split()
    attack = (
        pickle.PROTO
        + b"\x02"
        + f"c{module}\n{name}\n".encode()
        + b"N}X\x06\0\0\0__eq__K\x01s\x86b."
    )
    with pytest.raises(UserError, match=f"changes of .*{name}"):
        restricted_pickle("a.pt").load(io.BytesIO(attack))
    assert argparse.Namespace(a=1) == argparse.Namespace(a=1)


def test_a_function_hidden_behind_a_harmless_module_is_refused():
    """Protocol 4 finds ``serialization.os.system`` by attributes of the module ``torch``."""
    for module, name in (
        ("torch", "serialization.os.system"),
        ("torch._utils", "sys.modules"),
        ("argparse", "_os.system"),
    ):
        names = b"".join(
            pickle.SHORT_BINUNICODE + bytes([len(x)]) + x.encode() for x in (module, name)
        )
        attack = pickle.PROTO + b"\x04" + names + pickle.STACK_GLOBAL + b"."
        with pytest.raises(UserError, match=f"the class {module}.{name}"):
            restricted_pickle("a.pt").load(io.BytesIO(attack))


def test_settings_of_other_programs_are_never_imported(tmp_path):
    """A class of fairseq's name may lie anywhere on the path of the user's own programs."""
    (tmp_path / "fairseq_trap.py").write_text("raise SystemExit('imported')")
    attack = b"\x80\x02cfairseq.fairseq_trap\nConfig\n)R}X\x01\0\0\0aK\x01sb."
    found = restricted_pickle("a.pt").load(io.BytesIO(attack))
    assert to_builtins(found) == {"a": 1} and "fairseq.fairseq_trap" not in sys.modules


def test_a_program_of_torchscript_is_refused(tmp_path):
    """``torch.load`` would hand it to the interpreter of TorchScript."""
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "a.pt")
    with pytest.raises(UserError, match="found a TorchScript program"):
        load_checkpoint(tmp_path / "a.pt")


def test_an_attack_inside_the_zip_of_a_good_checkpoint_is_refused(tmp_path):
    """Tensors and names are those of a true checkpoint; only the pickle was exchanged."""
    path = save(tmp_path, {"model": weights()})
    with zipfile.ZipFile(path) as good:
        parts = {name: good.read(name) for name in good.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as bad:
        for name, data in parts.items():
            bad.writestr(name, pickle.dumps(Malicious()) if name.endswith("data.pkl") else data)
    with pytest.raises(UserError, match=r"posix\.system"):
        load_checkpoint(path)
    assert not os.path.exists("/tmp/ofa-was-here")


@pytest.mark.parametrize("keep", [0, 10, 300, 0.5, 0.99])
@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_checkpoint_is_refused(tmp_path, keep, new_format):
    path = save(
        tmp_path,
        {"model": {"encoder.a": torch.randn(2000)}},
        _use_new_zipfile_serialization=new_format,
    )
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(
        content[: int(keep * len(content)) if isinstance(keep, float) else keep]
    )
    with pytest.raises(UserError, match=r"a\.pt: expected a checkpoint, found a damaged"):
        load_checkpoint(path)


def test_a_single_wrong_bit_of_a_tensor_is_noticed(tmp_path):
    """torch reads the check sums of the archive, but does not compare them."""
    path = save(tmp_path, {"model": {"encoder.a": torch.randn(2000)}})
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    assert torch.load(path)["model"]["encoder.a"].shape == (2000,)
    with pytest.raises(
        UserError, match="a damaged or incomplete file .*data/0 has not the bytes that were written"
    ):
        load_checkpoint(path)


def test_whatever_byte_is_damaged_the_message_is_ours_or_nothing_changed(tmp_path):
    path = save(
        tmp_path,
        {"model": {"encoder.a": torch.arange(9.0)}, "cfg": {"model": {"arch": "ofa_tiny"}}},
    )
    whole = (tmp_path / "a.pt").read_bytes()
    draw = random.Random(0)
    for _ in range(400):
        content = bytearray(whole)
        content[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / "a.pt").write_bytes(content)
        try:
            found = load_checkpoint(path)
        except UserError:
            continue
        assert found["cfg"] == {"model": {"arch": "ofa_tiny"}}  # a time stamp or padding
        assert torch.equal(found["model"]["encoder.a"], torch.arange(9.0))


def test_a_missing_checkpoint_and_a_directory_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(tmp_path / "b.pt")
    with pytest.raises(UserError, match="directory"):
        load_checkpoint(tmp_path)


def test_a_file_of_something_else_is_refused():
    with pytest.raises(UserError, match="expected an OFA model"):
        _ = Checkpoint("a.pt", {"model": {"fc.weight": torch.ones(2)}}).weights


def test_trusted_files_are_read_without_limits(tmp_path):
    path = save(tmp_path, {"model": weights(), "cfg": types.SimpleNamespace(a=1)})
    with pytest.raises(UserError, match="types.SimpleNamespace"):
        load_checkpoint(path)
    assert load_checkpoint(path, trust=True)["cfg"].a == 1


@pytest.mark.parametrize(
    "content, words",
    [
        ({"cfg": "abc"}, "'cfg' is str"),
        ({"args": [1]}, "'args' is list"),
        ({"extra_state": {"ema": 5}}, "'extra_state.ema' is int"),
        ({"optimizer_history": [5]}, "'optimizer_history.*' is int"),
        ({"meta": {"model": "x"}}, "'meta.model' is str"),
        ({"light_tuning": 3}, "'light_tuning' is int"),
        ({"task_state": {"members": ["a"]}}, "'task_state.members' is list"),
        ({"task_state": {"members": {"caption": "a"}}}, "'task_state.members.*' is str"),
        ({"cfg": {"task": {"_name": ["caption"]}}}, "'cfg.task._name' is list"),
        ({"cfg": {"model": {"arch": {}}}}, "'cfg.model.arch' is dict"),
        ({"args": {"task": 5}}, "'args.task' is int"),
    ],
)
def test_parts_of_another_kind_are_named_in_files_of_both_formats(tmp_path, content, words):
    write_tensors(weights(), tmp_path / "a.safetensors", {METADATA_KEY: json.dumps(content)})
    torch.save({"model": weights(), **content}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        with pytest.raises(UserError, match=words):
            load_checkpoint(tmp_path / name)
