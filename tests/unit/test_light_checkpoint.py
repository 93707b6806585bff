"""Files of tuned weights: how the commands look at them, join them with their base, and what
they refuse."""

import pytest
import torch
from test_checkpoint_command import run, save, settings, weight

from ofa.checkpoints.read import ENTRY, Checkpoint, named_base, read
from ofa.errors import UserError
from ofa.io.safe_load import load_checkpoint

PROMPT = "decoder.decoder_prompt_encoder.embedding.weight"
LAYER = "encoder.layers.0.fc1"


@pytest.fixture
def base(tmp_path):
    return save(tmp_path / "base.pt")


@pytest.fixture
def make(tmp_path, base):
    """Function: name, scale -> a file of a prompt and of LoRA of rank 2 in one layer."""

    def make(name: str, scale: float = 1.0, **more):
        tuned = {
            PROMPT: torch.full((2, 64), scale),
            f"{LAYER}.lora_down": torch.full((2, 16), scale),
            f"{LAYER}.lora_up": torch.full((16, 2), scale),
        }
        config = settings()
        vars(config["model"]).update(lora_rank=2, lora_alpha=6.0)
        averages = {"ema": {PROMPT: torch.zeros(2, 64)}}
        entry = {"base": named_base(base), "methods": ["prefix", "lora"]}
        return save(
            tmp_path / name,
            **{"model": tuned, "cfg": config, "extra_state": averages, ENTRY: entry, **more},
        )

    return make


def test_merging_adds_the_base_and_makes_lora_plain(tmp_path, base, make):
    out = tmp_path / "full.pt"
    assert run("merge", make("light.pt"), "--base", base, "--out", out) == 0
    full, before = load_checkpoint(out), load_checkpoint(base)["model"]
    assert ENTRY not in full and full["cfg"]["model"]["lora_rank"] == 0
    assert full["model"].keys() == before.keys() | {PROMPT}
    added = full["model"][f"{LAYER}.weight"] - before[f"{LAYER}.weight"]
    # 1 * 1 * rank * alpha / rank
    torch.testing.assert_close(added, torch.full((16, 16), 6.0), atol=1e-5, rtol=0)
    assert all(
        torch.equal(full["model"][name], tensor)
        for name, tensor in before.items()
        if name != f"{LAYER}.weight"
    )
    assert run("merge", make("light.pt"), "--ema", "--out", tmp_path / "ema.pt") == 0
    assert weight(tmp_path / "ema.pt", PROMPT).eq(0).all()


def test_strip_and_average_keep_the_name_of_the_base(tmp_path, base, make):
    files = make("a.pt", 1.0, optimizer_history=[{"num_updates": 1}]), make("b.pt", 3.0)
    assert run("average", *files, "--out", tmp_path / "mean.pt") == 0
    assert run("strip", files[0], "--out", tmp_path / "strip.pt") == 0
    for name, value in (("mean.pt", 2.0), ("strip.pt", 1.0)):
        found = load_checkpoint(tmp_path / name)
        assert Checkpoint("a.pt", found).lacks_base and found["model"][PROMPT].eq(value).all()
        assert (
            len(read(tmp_path / name).content["model"]) == len(load_checkpoint(base)["model"]) + 3
        )
    other = make("c.pt", **{ENTRY: {"base": {**named_base(base), "sha256": "0" * 64}}})
    assert run("average", files[0], other, "--out", tmp_path / "no.pt") == 2


@pytest.mark.parametrize("command", ["show", "merge"])
def test_a_missing_or_wrong_base_is_one_message(tmp_path, base, make, command, capsys):
    light = make("light.pt")
    out = () if command == "show" else ("--out", tmp_path / "full.pt")
    assert run(command, light, "--base", light, *out) == 2
    errors = capsys.readouterr().err.splitlines()
    assert (
        len(errors) == 1
        and "found another file in its place" in errors[0]
        and "--base FILE" in errors[0]
    )
    base.rename(tmp_path / "moved.pt")
    assert run(command, light, *out) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and f"found no file {base}" in errors[0] and "--base FILE" in errors[0]
    assert run(command, light, "--base", tmp_path / "moved.pt", *out) == 0


def test_a_base_beside_the_checkpoint_is_found(tmp_path, base, make):
    light, moved = make("light.pt"), tmp_path / "elsewhere"
    moved.mkdir()
    for file in (light, base):
        file.rename(moved / file.name)
    assert PROMPT in read(moved / "light.pt").content["model"]


def test_a_base_of_a_whole_checkpoint_is_said_to_change_nothing(base, caplog):
    read(base, base)
    assert "is no delta checkpoint, base (--base) changes nothing" in caplog.text


def test_averages_of_the_base_are_meant_when_it_says_so(base, make):
    light = make("light.pt", **{ENTRY: {"base": named_base(base, ema=True)}})
    expected = read(base, ema=True).weights[f"{LAYER}.weight"]
    assert torch.equal(read(light).content["model"][f"{LAYER}.weight"], expected)


def test_nothing_to_merge_and_a_damaged_entry_are_refused(tmp_path, base, make, capsys):
    assert run("merge", base, "--out", tmp_path / "full.pt") == 2
    assert "holds all weights already" in capsys.readouterr().err
    for entry in ({"base": {"path": 3, "sha256": "0"}}, {"base": "a"}, "lora"):
        with pytest.raises(UserError, match="light_tuning"):
            read(make("light.pt", **{ENTRY: entry}))
