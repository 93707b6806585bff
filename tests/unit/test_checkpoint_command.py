"""``ofa checkpoint``: what it prints, what it keeps, and what it refuses."""

import argparse
import errno

import pytest
import torch
from small_network import SMALL, build_small

from ofa.checkpoints.adapt import load_into
from ofa.checkpoints.edit import newest
from ofa.checkpoints.options import comparable, differences, options_of
from ofa.cli.main import main
from ofa.io.safe_load import load_checkpoint


def settings(**changed) -> dict:
    """A configuration in groups, as training stores it."""
    model = argparse.Namespace(_name="ofa_nano", arch="ofa_nano", **SMALL)
    config = {
        "task": {"_name": "caption", "data": "a.tsv,b.tsv", "patch_image_size": 480},
        "model": model,
        "optimizer": {"_name": "adam", "lr": [1e-5], "adam_betas": "(0.9,0.999)"},
        "ema": {"ema_decay": 0.99},
        "checkpoint": {"save_dir": "runs/a", "best_checkpoint_metric": "cider"},
    }
    for name, value in changed.items():
        next(group for group in config.values() if isinstance(group, dict) and name in group)[
            name
        ] = value
    return config


def small_weights(vocab: int = 20, shift: float = 0.0) -> dict:
    """Without the large constant tables, which any model has of its own."""
    model = build_small(vocab)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += shift
    return {
        name: tensor for name, tensor in model.state_dict().items() if not name.endswith("_bucket")
    }


def save(path, shift: float = 0.0, updates: int = 10, vocab: int = 20, **more):
    """A checkpoint as training writes it; all weights are ``shift`` above the seed's."""
    weights = small_weights(vocab, shift)
    ema = {name: tensor + 1 for name, tensor in weights.items() if tensor.is_floating_point()}
    content = {
        "args": None,
        "cfg": settings(),
        "model": weights,
        "optimizer_history": [
            {"num_updates": updates, "criterion_name": "X", "lr_scheduler_state": {"best": None}}
        ],
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(1000)}}},
        "extra_state": {"ema": ema, "best": 1.25, "train_iterator": {"epoch": 3}},
    }
    torch.save({**content, **more}, path)
    return path


def weight(path, name: str = "encoder.layers.0.fc1.weight") -> torch.Tensor:
    return load_checkpoint(path)["model"][name]


def run(*arguments) -> int:
    return main(["checkpoint", *map(str, arguments)])


def test_show_prints_model_state_sizes_and_settings(tmp_path, capsys):
    assert run("show", save(tmp_path / "a.pt"), "--config", "--tensors") == 0
    printed = capsys.readouterr().out
    for part in (
        "ofa_nano, ",
        "20 vocabulary entries",
        "caption",
        "10 updates, epoch 3, best cider 1.2500",
        "present, decay 0.99 (ema)",
        "patch_image_size = 480",
        "encoder.layers.0.fc1.weight  [16, 16]  float32",
    ):
        assert part in printed


def test_parameters_that_two_names_share_count_once(tmp_path, capsys):
    floating = [tensor for tensor in small_weights().values() if tensor.is_floating_point()]
    count = sum(
        tensor.numel() for tensor in {tensor.data_ptr(): tensor for tensor in floating}.values()
    )
    run("show", save(tmp_path / "a.pt"))
    assert f"{count:,} parameters" in capsys.readouterr().out


def test_show_prints_no_control_characters_of_a_file(tmp_path, capsys):
    task = {"_name": "template\x1b[31m", "template": "[text] \x07 -> [text:a]" + "x" * 10**6}
    content = {"cfg": {"task": task, "model": {"arch": "ofa_\x9b"}}, "model": small_weights()}
    torch.save(content, tmp_path / "a.pt")
    assert run("show", tmp_path / "a.pt", "--config") == 0
    printed = capsys.readouterr().out
    assert "template?[31m" in printed and "[text] ? -> [text:a]" in printed
    assert printed.replace("\n", "").isprintable() and len(printed) < 50_000


def test_show_reads_files_of_upstream_without_training_state(tmp_path, capsys):
    old = argparse.Namespace(arch="ofa_tiny", task="caption", ema_decay=0.9999)
    torch.save({"args": old, "model": small_weights()}, tmp_path / "old.pt")
    assert run("show", tmp_path / "old.pt") == 0
    printed = capsys.readouterr().out
    assert "ofa_tiny" in printed and "not stored" in printed and "optimizer none" in printed


def test_average_is_the_mean_and_keeps_what_is_shared(tmp_path):
    files = [
        save(tmp_path / f"{shift}.pt", shift, updates)
        for shift, updates in ((0.0, 30), (1.0, 20), (5.0, 10))
    ]
    assert run("average", *files, "--out", tmp_path / "mean.pt") == 0
    found = load_checkpoint(tmp_path / "mean.pt")
    torch.testing.assert_close(weight(tmp_path / "mean.pt"), weight(files[0]) + 2.0)
    assert (
        found["optimizer_history"][-1]["num_updates"] == 30 and "last_optimizer_state" not in found
    )
    model = found["model"]
    assert (
        model["encoder.embed_tokens.weight"].data_ptr()
        == model["decoder.output_projection.weight"].data_ptr()
    )
    load_into(build_small(20), model)


def test_average_takes_the_newest_files_of_a_folder(tmp_path):
    files = {
        "checkpoint9": 9,
        "checkpoint10": 1,
        "checkpoint_11_500": 3,
        "checkpoint_last": 50,
        "checkpoint_best": 50,
    }
    for name, shift in files.items():
        save(tmp_path / f"{name}.pt", shift)
    assert [path.name for path in newest(tmp_path, 2)] == [
        "checkpoint10.pt",
        "checkpoint_11_500.pt",
    ]
    assert run("average", tmp_path, "--last", 2, "--out", tmp_path / "mean.pt") == 0
    torch.testing.assert_close(
        weight(tmp_path / "mean.pt"), weight(tmp_path / "checkpoint10.pt") + 1.0
    )


def test_moving_averages_can_be_averaged_and_taken(tmp_path):
    files = [save(tmp_path / f"{shift}.pt", shift) for shift in (0.0, 2.0)]
    assert run("average", *files, "--ema", "--out", tmp_path / "mean.pt") == 0
    torch.testing.assert_close(weight(tmp_path / "mean.pt"), weight(files[0]) + 2.0)
    assert run("strip", files[0], "--ema", "--out", tmp_path / "ema.pt") == 0
    torch.testing.assert_close(weight(tmp_path / "ema.pt"), weight(files[0]) + 1.0)


def test_strip_keeps_weights_and_settings_alone(tmp_path):
    path = save(tmp_path / "a.pt")
    assert run("strip", path, "--out", tmp_path / "small.pt") == 0
    found = load_checkpoint(tmp_path / "small.pt")
    assert (
        set(found) == {"args", "cfg", "model", "optimizer_history", "extra_state"}
        and not found["extra_state"]
    )
    assert torch.equal(weight(tmp_path / "small.pt"), weight(path))
    assert comparable(options_of(found)) == comparable(options_of(load_checkpoint(path)))
    assert (tmp_path / "small.pt").stat().st_size < 0.6 * path.stat().st_size
    assert run("strip", path, "--out", path, "--force") == 0, (
        "a file may be replaced by its own smaller form"
    )


class Configured:
    """Stands for a class that reading refuses."""

    def __init__(self):
        self.arch, self.sizes = "ofa_tiny", (1, 2)


def test_a_trusted_file_becomes_plain_data(tmp_path, capsys):
    path = save(tmp_path / "odd.pt", cfg={"model": Configured()})
    assert run("strip", path, "--out", tmp_path / "plain.pt") == 2
    assert "ofa checkpoint strip --trust-checkpoint" in capsys.readouterr().err
    assert run("strip", path, "--trust-checkpoint", "--out", tmp_path / "plain.pt") == 0
    assert load_checkpoint(tmp_path / "plain.pt")["cfg"] == {
        "model": {"arch": "ofa_tiny", "sizes": (1, 2)}
    }


def test_diff_of_two_checkpoints_lists_what_was_learned_from_differently(tmp_path, capsys):
    a = save(tmp_path / "a.pt")
    b = save(
        tmp_path / "b.pt",
        cfg=settings(patch_image_size=256, lr=[3e-5], save_dir="runs/b", adam_betas=[0.9, 0.999]),
    )
    assert run("diff", a, b) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["option", "a.pt", "b.pt"],
        ["lr", "1e-05", "3e-05"],
        ["patch_image_size", "480", "256"],
    ]
    assert run("diff", a, a) == 0
    assert "no option differs" in capsys.readouterr().out
    assert run("diff", "--all", a, b) == 1
    assert "save_dir" in capsys.readouterr().out


def test_an_option_only_one_side_knows_differs_when_it_is_on():
    assert differences({"lr": 1.0, "new_flag": False}, {"lr": 1.0, "old_flag": 3}) == {
        "old_flag": ("-", 3)
    }


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("show missing.pt", "no such file"),
        ("show text.pt", "damaged or incomplete"),
        ("strip a.pt --out a.pt", "found one; choose another"),
        (
            "average a.pt other.pt --out m.pt",
            "encoder.embed_tokens.weight is [25, 16], there [20, 16]",
        ),
        ("average . --last 3 --out m.pt", "found 0; take fewer by --last"),
        ("average . --out m.pt", "expected files, or one folder and --last N"),
        ("average a.pt --last 2 --out m.pt", "expected files, or one folder and --last N"),
        ("average bare.pt --ema --out m.pt", "bare.pt: the checkpoint has no EMA weights"),
        ("diff a.pt missing.sh", "missing.sh: expected a checkpoint or a run script"),
        (
            "diff a.pt nothing.sh",
            "nothing.sh: expected a run script that trains, found: it starts no training",
        ),
        ("diff a.pt other.pt --lr=1", "flags go with a run script"),
        ("diff bare.pt a.pt", "expected the settings of a training"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.pt"), save(tmp_path / "other.pt", vocab=25)
    torch.save({"model": small_weights()}, "bare.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "nothing.sh").write_text("true\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(*arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, capsys):
    path = save(tmp_path / "a.pt")
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert run("strip", path, "--out", path, "--force") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
