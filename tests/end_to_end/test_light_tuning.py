"""Parameter-efficient tuning in real trainings: small checkpoints that name their base, exact
continuation, merging.
"""

import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from test_resume import assert_same_end
from training_runs import curve, flags, make_files, train

from ofa.checkpoints.read import ENTRY, read
from ofa.cli.main import main
from ofa.io.fingerprint import sha256_of
from ofa.io.safe_load import load_checkpoint

LORA = ("--lora-rank=2", "--lora-targets=q,v,fc1", "--lora-alpha=4", "--lora-dropout=0.1")
PROMPTS = (
    "--encoder-prompt",
    "--decoder-prompt",
    "--encoder-prompt-length=3",
    "--decoder-prompt-length=3",
)
ADAPTERS = ("--adapter", "--adapter-dim=4")
AVERAGES = ("--store-ema", "--ema-fp32", "--ema-decay=0.5")
SHORT = ("--max-update=4", "--disable-validation", "--lr=1e-2")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data, and a base of its own folder that was trained with moving averages."""
    files = make_files(tmp_path_factory.mktemp("light"))
    done = train(flags(files, files.folder / "base", *SHORT, *AVERAGES))
    assert done.code == 0, done.log[-3000:]
    files.base = files.folder / "base/checkpoint_last.pt"
    return files


def tune(files, name: str, *more: str, base: Path | None = None, **how):
    """A run of parameter-efficient tuning in the folder ``name``. Returns: its outcome and its last
    checkpoint's path."""
    start = f"--finetune-from-model={base or files.base}"
    done = train(flags(files, files.folder / name, *SHORT, start, *more), **how)
    return done, files.folder / name / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def tuned(files):
    """The undisturbed run with every method that has modules of its own."""
    record = files.folder / "tuned.txt"
    done, path = tune(files, "tuned", *LORA, *PROMPTS, *ADAPTERS, *AVERAGES, record=record)
    assert done.code == 0, done.log[-3000:]
    return path, curve(record)


def test_a_checkpoint_holds_tuned_weights_alone_and_names_its_base(files, tuned):
    path, _ = tuned
    light = load_checkpoint(path)
    names = set(light["model"])
    assert {re.search(r"lora_|prompt_encoder|\.adapter\.", name) is None for name in names} == {
        False
    }
    base = light[ENTRY]["base"]
    assert base == {"path": str(files.base), "sha256": sha256_of(files.base), "ema": False}
    assert light[ENTRY]["methods"] == ["prefix", "lora", "adapter"]
    assert set(light["extra_state"]["ema"]) == set(light["extra_state"]["ema_fp32_params"]) == names
    sizes = sorted(tensor.numel() for tensor in light["model"].values())
    moments = light["last_optimizer_state"]["state"].values()
    assert sorted(moment["exp_avg"].numel() for moment in moments) == sizes
    assert path.stat().st_size < files.base.stat().st_size / 10
    assert all(
        tensor.ne(light["extra_state"]["ema"][name]).any()
        for name, tensor in light["model"].items()
        if "lora_up" in name
    )


def test_a_killed_run_of_light_tuning_goes_on_bit_for_bit(files, tuned):
    path, expected = tuned
    record = files.folder / "killed.txt"
    methods = (*LORA, *PROMPTS, *ADAPTERS, *AVERAGES, "--save-interval-updates=2")
    killed, _ = tune(files, "killed", *methods, stop_in=3, record=record)
    assert killed.code == -signal.SIGKILL
    done, again = tune(files, "killed", *methods, record=record)
    assert done.code == 0, done.log[-3000:]
    assert curve(record) == expected
    assert_same_end(again.parent, path.parent)


@pytest.mark.parametrize("place", ["missing", "another"])
def test_without_its_base_a_run_stops_with_one_message_and_goes_on_where_it_is_given(
    files, tuned, tmp_path, place
):
    moved, home = tmp_path / "moved.pt", tmp_path / "home.pt"
    shutil.copy(files.base, home)
    done, _ = tune(files, f"moved_{place}", "--bitfit", "--max-update=2", base=home)
    assert done.code == 0, done.log[-3000:]
    home.rename(moved)
    if place == "another":
        shutil.copy(tuned[0], home)
    done, path = tune(files, f"moved_{place}", "--bitfit", "--max-update=3", base=home)
    errors = [line for line in done.log.splitlines() if line.startswith("error: ")]
    expected = (
        rf"needs its base home\.pt \(sha256 {sha256_of(moved)[:12]}\.\.\.\), found .*by --base FILE"
    )
    assert (
        done.code == 2
        and len(errors) == 1
        and re.search(expected, errors[0])
        and "Traceback" not in done.log
    ), done.log
    assert ("another file" in errors[0]) == (place == "another")
    done, _ = tune(
        files, f"moved_{place}", "--bitfit", "--max-update=3", f"--base={moved}", base=home
    )
    assert done.code == 0 and load_checkpoint(path)["optimizer_history"][-1]["num_updates"] == 3, (
        done.log[-3000:]
    )


def test_a_light_checkpoint_starts_another_run_on_the_same_base(files, tuned):
    """With a learning rate of zero: what the second run saves is what the first one did."""
    done, path = tune(
        files,
        "second",
        *LORA,
        *PROMPTS,
        *ADAPTERS,
        "--lr=0",
        "--stop-min-lr=-1",
        "--max-update=1",
        base=tuned[0],
    )
    assert done.code == 0, done.log[-3000:]
    first, second = load_checkpoint(tuned[0]), load_checkpoint(path)
    assert second[ENTRY]["base"]["sha256"] == sha256_of(files.base)
    assert first["model"].keys() == second["model"].keys()
    assert all(
        torch.equal(tensor, second["model"][name]) for name, tensor in first["model"].items()
    )


def test_averages_of_the_base_can_be_the_base_and_half_precision_keeps_it(files):
    more = (
        "--bitfit",
        "--use-ema-weights-to-init-param",
        *AVERAGES,
        "--fp16",
        "--fp16-init-scale=4",
    )
    done, path = tune(files, "averaged", *more, base=files.base)
    assert done.code == 0, done.log[-3000:]
    whole, averaged = (read(path).content, read(files.base, ema=True).weights)
    tuned = load_checkpoint(path)["model"].keys()
    assert whole[ENTRY]["base"]["ema"] and all(name.endswith("bias") for name in tuned)
    assert all(
        torch.equal(whole["model"][name], tensor)
        for name, tensor in averaged.items()
        if name not in tuned
    )


def test_a_run_from_random_weights_has_no_base_and_saves_all(files):
    command = flags(
        files, files.folder / "baseless", *SHORT, "--bitfit", "--save-interval-updates=2"
    )
    assert train(command, 3).code == -signal.SIGKILL
    done = train(command)
    assert done.code == 0, done.log[-3000:]
    found = load_checkpoint(files.folder / "baseless/checkpoint_last.pt")
    assert found[ENTRY]["base"] is None and "encoder.embed_tokens.weight" in found["model"]


def test_merged_and_light_checkpoint_say_the_same(files, tuned, tmp_path, capsys):
    from PIL import Image

    from ofa import OFA

    full, image = tmp_path / "full.pt", Image.new("RGB", (32, 32), "red")
    assert main(["checkpoint", "merge", str(tuned[0]), "--out", str(full)]) == 0
    light, merged = (OFA.load(path, device="cpu") for path in (tuned[0], full))
    assert not any("lora" in name for name, _ in merged.network.named_parameters())
    assert any("adapter" in name for name, _ in merged.network.named_parameters())
    one, other = (model.caption(image, beam=2, max_len_b=6) for model in (light, merged))
    assert one == other and one.score == pytest.approx(other.score, abs=1e-5)
    capsys.readouterr()
    assert main(["checkpoint", "show", str(tuned[0])]) == 0
    printed = capsys.readouterr().out
    assert f"base found: {files.base}" in printed and "prefix, lora, adapter" in printed
