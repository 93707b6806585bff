"""``ofa checkpoint`` beside fairseq: recipes are compared as fairseq parses them, stripped files
load in fairseq."""

import argparse
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf
from small_network import build_small

import ofa
from ofa.cli.main import main

SCRIPT = Path(__file__).resolve().parents[2] / "run_scripts" / "caption" / "train_stage1.sh"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that stores the configuration of the stage-1 script with another learning
    rate."""
    ofa.register_fairseq_plugin()
    printed = subprocess.run(
        ["bash", str(SCRIPT), "--lr=3e-5"],
        env={"PATH": "/usr/bin:/bin", "DRY_RUN": "1", "SIZE": "tiny", "NPROC": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = shlex.split(printed.splitlines()[-1])
    parsed = options.parse_args_and_arch(
        options.get_training_parser(), words[words.index("fairseq_cli.train") + 1 :]
    )
    path = tmp_path_factory.mktemp("recipes") / "checkpoint.pt"
    content = {
        "args": None,
        "cfg": OmegaConf.to_container(convert_namespace_to_omegaconf(parsed)),
        "model": build_small(20).state_dict(),
        "optimizer_history": [
            {
                "num_updates": 7,
                "criterion_name": "X",
                "optimizer_name": "Y",
                "lr_scheduler_state": {},
            }
        ],
        "last_optimizer_state": {"state": {}},
        "extra_state": {"train_iterator": {"epoch": 2}},
    }
    torch.save(content, path)
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in {"SIZE": "tiny", "NPROC": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_recipe_differs_in_what_was_changed_alone(trained, capsys):
    assert main(["checkpoint", "diff", str(trained), str(SCRIPT)]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["option", "checkpoint.pt", "train_stage1.sh"], ["lr", "3e-05", "1e-05"]]


def test_flags_after_the_script_belong_to_the_recipe(trained, capsys):
    assert main(["checkpoint", "diff", str(trained), str(SCRIPT), "--lr=3e-5"]) == 0
    assert (
        main(
            ["checkpoint", "diff", str(trained), str(SCRIPT), "--lr=3e-5", "--patch-image-size=256"]
        )
        == 1
    )
    assert "patch_image_size  480            256" in capsys.readouterr().out


def test_a_stripped_checkpoint_loads_in_fairseq(trained, tmp_path):
    assert main(["checkpoint", "strip", str(trained), "--out", str(tmp_path / "small.pt")]) == 0
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "small.pt"))
    assert state["cfg"].task.patch_image_size == 480 and isinstance(
        state["cfg"].model, argparse.Namespace
    )
    assert state["optimizer_history"][-1]["num_updates"] == 7
