"""A checkpoint as upstream's trainer writes it is resumed: updates, learning rate, Adam's
moments, averages, place in the data."""

import subprocess
import sys
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
from omegaconf import OmegaConf
from training_runs import flags, log_lines, make_files, train

from ofa.checkpoints.adapt import CONSTANTS, EMBEDDINGS
from ofa.io.safe_load import load_checkpoint

EMA = ("--store-ema", "--ema-fp32", "--ema-decay=0.5")
UPDATES, BATCHES = 8, 2  # of the upstream run: six updates of its first epoch and two of its second
METERS = [(10, "loss", "AverageMeter", {"val": 6.0, "sum": 60.0, "count": 10, "round": 3})]
ENCOURAGING = "adjust_label_smoothed_encouraging_loss"
UNUSED = (
    "decoder.embed_image_positions",
    "decoder.image_pos_ln",
    "decoder.image_rel_pos",
    "decoder.code_layernorm",
)
CLASSES = {
    "adjust_label_smoothed_cross_entropy": "AdjustLabelSmoothedCrossEntropyCriterion",
    ENCOURAGING: "AdjustLabelSmoothedEncouragingLossCriterion",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data, and the weights of a model that has made one update."""
    files = make_files(tmp_path_factory.mktemp("upstream"))
    done = train(flags(files, files.folder / "start", "--max-update=1", "--disable-validation"))
    assert done.code == 0, done.log[-3000:]
    files.weights = load_checkpoint(files.folder / "start/checkpoint_last.pt")["model"]
    return files


def trained_names(weights) -> list[str]:
    """The parameters in upstream's order: that of the state dict, a shared table once."""
    left_out = (*CONSTANTS, *EMBEDDINGS[1:], "running_mean", "running_var", "num_batches_tracked")
    return [name for name in weights if not name.endswith(left_out)]


def moments(weights, step: int) -> dict:
    """A state of Adam in which every parameter has moments of its own, too large to be changed
    much by an update."""
    return {
        number: {
            "step": step,
            "exp_avg": torch.full_like(weights[name], 1000.0 + number),
            "exp_avg_sq": torch.full_like(weights[name], 2e6 + number),
        }
        for number, name in enumerate(trained_names(weights))
    }


def upstream_file(
    path,
    weights,
    criterion: str = CLASSES["adjust_label_smoothed_cross_entropy"],
    flat: bool = False,
    **more,
):
    """``checkpoint_last.pt`` of upstream's trainer. Args: flat: with one tensor for all, as of
    ``--fp16`` on a GPU."""
    state = moments(weights, UPDATES)
    if flat:
        joined = {
            name: torch.cat([one[name].flatten() for one in state.values()])
            for name in ("exp_avg", "exp_avg_sq")
        }
        state = {0: {"step": UPDATES, **joined}}
    group = {
        "lr": 5e-4,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
        "params": list(state),
    }
    averages = {
        name: tensor + 1 if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }
    shorter = {
        name: tensor[:-1]
        for name, tensor in averages.items()
        if name.endswith("image_position_idx")
    }
    content = {
        "args": None,
        "cfg": {
            "task": {"_name": "caption", "data": "elsewhere.tsv"},
            "model": Namespace(_name="ofa_tiny", arch="ofa_tiny"),
            "checkpoint": {
                "restore_file": "../../checkpoints/ofa_tiny.pt",
                "reset_optimizer": True,
            },
        },
        "model": weights,
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": criterion,
                "optimizer_name": "FP16Optimizer" if flat else "FairseqAdam",
                "lr_scheduler_state": {"best": 1.5},
                "num_updates": UPDATES,
            }
        ],
        "task_state": {},
        "extra_state": {
            "metrics": OrderedDict(
                default=[*METERS, (790, "wall", "StopwatchMeter", {"sum": 0, "n": 0, "round": 0})]
            ),
            "previous_training_time": 100.0,
            "ema": averages,
            "ema_fp32_params": {**averages, **shorter},
            "train_iterator": {
                "version": 2,
                "epoch": 2,
                "iterations_in_epoch": BATCHES,
                "shuffle": False,
            },
            "val_loss": 1.5,
            "best": 1.5,
        },
        "last_optimizer_state": {
            "state": state,
            "param_groups": [group],
            **({"loss_scale": 4.0} if flat else {}),
        },
        **more,
    }
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path


def assert_resumed(done, folder, weights) -> dict:
    """Two more updates were made from exactly where the file was. Returns: the checkpoint after
    them."""
    assert done.code == 0, done.log[-3000:]
    lines = log_lines(done.log)
    assert "num_updates=9" in lines[0].replace(" ", "") and "epoch=2" not in lines[0]
    found = load_checkpoint(folder / "checkpoint_last.pt")
    record, position = found["optimizer_history"][-1], found["extra_state"]["train_iterator"]
    assert record["num_updates"] == UPDATES + 2 and (
        position["epoch"],
        position["iterations_in_epoch"],
    ) == (2, BATCHES + 2)
    state, names = found["last_optimizer_state"]["state"], trained_names(weights)
    assert len(state) == len(names)
    for number, name in enumerate(names):
        # of captions the table of image codes learns nothing
        decay = {UPDATES: 1.0, UPDATES + 2: 0.81}[state[number]["step"]]
        expected = torch.full_like(weights[name], decay * (1000 + number))
        torch.testing.assert_close(state[number]["exp_avg"], expected, atol=0.2, rtol=0, msg=name)
    unused = [name for number, name in enumerate(names) if state[number]["step"] == UPDATES]
    assert all(name.startswith(UNUSED) for name in unused), unused
    return found


@pytest.mark.parametrize("criterion", CLASSES)
def test_an_upstream_run_in_its_folder_is_resumed_with_moments_averages_and_place(files, criterion):
    folder = files.folder / criterion
    upstream_file(folder / "checkpoint_last.pt", files.weights, CLASSES[criterion])
    arguments = [
        word
        for word in flags(
            files, folder, *EMA, "--max-update=10", "--disable-validation", "--log-interval=1"
        )
        if not word.startswith("--criterion")
    ]
    done = train([*arguments, f"--criterion={criterion}"])
    found = assert_resumed(done, folder, files.weights)
    name = "encoder.layers.0.fc1.weight"
    # lr is 1e-3 at most: weights hardly move
    expected = 0.25 * (files.weights[name] + 1) + 0.75 * files.weights[name]
    torch.testing.assert_close(
        found["extra_state"]["ema_fp32_params"][name], expected, atol=0.01, rtol=0
    )


@pytest.mark.parametrize("form", ["Namespace", "DictConfig"])
def test_an_upstream_file_is_resumed_by_restore_file_whatever_its_settings_are(files, form):
    cfg = {
        "task": {"_name": "caption"},
        "model": {"_name": "ofa_tiny"},
        "checkpoint": {"restore_file": "x.pt"},
    }
    cfg = (
        {group: Namespace(**part) for group, part in cfg.items()}
        if form == "Namespace"
        else OmegaConf.create(cfg)
    )
    path = upstream_file(files.folder / f"elsewhere_{form}" / "run.pt", files.weights, cfg=cfg)
    content = torch.load(path, weights_only=False)
    content["extra_state"]["metrics"] = {"default": METERS} if form == "Namespace" else METERS
    torch.save(content, path)
    folder = files.folder / f"restored_{form}"
    done = train(
        flags(
            files,
            folder,
            f"--restore-file={path}",
            "--max-update=10",
            "--disable-validation",
            "--log-interval=1",
        )
    )
    assert_resumed(done, folder, files.weights)


def test_the_flat_moments_of_a_gpu_land_on_the_parameters_of_a_cpu(files):
    folder = files.folder / "flat"
    upstream_file(folder / "checkpoint_last.pt", files.weights, flat=True)
    done = train(
        flags(
            files, folder, "--fp16", "--max-update=10", "--disable-validation", "--log-interval=1"
        )
    )
    assert_resumed(done, folder, files.weights)


@pytest.mark.parametrize(
    "change, more, message",
    [
        (
            {"criterion": "ScstRewardCriterion"},
            (),
            (
                "expected criterion AdjustLabelSmoothedCrossEntropyCriterion, found"
                " ScstRewardCriterion"
            ),
        ),
        ({"flat": True}, (), "expected optimizer FairseqAdam, found FP16Optimizer"),
        ({}, ("--freeze-encoder-embedding", "--freeze-decoder-embedding"), "this run trains"),
    ],
)
def test_a_state_of_other_parameters_is_one_line_with_the_remedy(
    files, change, more, message, tmp_path
):
    upstream_file(tmp_path / "run/checkpoint_last.pt", files.weights, **change)
    done = train(flags(files, tmp_path / "run", "--max-update=10", "--disable-validation", *more))
    errors = [line for line in done.log.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1 and "Traceback" not in done.log, done.log[-2000:]
    assert message in errors[0] and "--reset-optimizer" in errors[0]


def test_our_checkpoint_has_the_names_and_forms_that_upstream_compares(files):
    content = torch.load(files.folder / "start/checkpoint_last.pt", weights_only=True)
    record = content["optimizer_history"][-1]
    assert (record["criterion_name"], record["optimizer_name"]) == (
        CLASSES["adjust_label_smoothed_cross_entropy"],
        "FairseqAdam",
    )
    assert (
        content["args"] is None
        and {"version", "epoch", "iterations_in_epoch", "shuffle"}
        <= content["extra_state"]["train_iterator"].keys()
    )
    state = content["last_optimizer_state"]
    assert [len(group["params"]) for group in state["param_groups"]] == [
        len(trained_names(content["model"]))
    ]
    assert all(
        one.keys() == {"step", "exp_avg", "exp_avg_sq"} and type(one["step"]) is int
        for one in state["state"].values()
    )


READ_BY_STOCK_FAIRSEQ = """
import sys
from fairseq import checkpoint_utils
changed = {"data": "elsewhere.tsv", "patch_image_size": 64}
state = checkpoint_utils.load_checkpoint_to_cpu(sys.argv[1], changed)
assert "ofa" not in sys.modules
model, task = state["cfg"].model, state["cfg"].task
print(model.arch, model._name, task.data, task.patch_image_size, len(state["model"]))
"""


def test_stock_fairseq_reads_our_checkpoint_without_the_plugin_and_overrides_its_options(files):
    path = files.folder / "start/checkpoint_last.pt"
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_STOCK_FAIRSEQ, str(path)],
        capture_output=True,
        text=True,
        cwd=files.folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [
        "ofa_nano",
        "ofa_nano",
        "elsewhere.tsv",
        "64",
        str(len(files.weights)),
    ]


@pytest.mark.parametrize(
    "more",
    [
        (*EMA, "--fp16", "--eval-cider", "--patience=3"),
        ("--lora-rank=2", "--encoder-prompt", *EMA),
        ("--bf16",),
    ],
)
def test_every_kind_of_training_checkpoint_opens_without_running_code(files, more, tmp_path):
    start = f"--finetune-from-model={files.folder / 'start/checkpoint_last.pt'}"
    done = train(flags(files, tmp_path / "run", "--max-update=2", start, *more))
    assert done.code == 0, done.log[-3000:]
    content = torch.load(tmp_path / "run/checkpoint_best.pt", weights_only=True)
    assert content["cfg"]["model"]["arch"] == "ofa_nano" and content["args"] is None
    assert ("ema" in content["extra_state"]) == ("--store-ema" in more) and (
        "light_tuning" in content
    ) == ("--lora-rank=2" in more)
