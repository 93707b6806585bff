"""What is replaced in fairseq: few names, each once, with a reason and a test, in any order."""

import ast
import inspect
import subprocess
import sys
from types import ModuleType

import fairseq_cli.train
import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.optim import lr_scheduler
from fairseq.trainer import Trainer
from training_runs import ROOT, TESTS, flags, log_lines, make_files, train

import ofa
from ofa.errors import UserError
from ofa.trainer.fairseq_compat import CHECKPOINT_FLAGS, PATCHES, make_zeros_without_gpu
from ofa.trainer.fairseq_trainer import OFATrainer
from ofa.trainer.patch import Patch

ofa.register_fairseq_plugin()

COMPAT, PATCHED = "contract/test_fairseq_compat.py", "contract/test_fairseq_patches.py"
COMMANDS, RESUME = "end_to_end/test_fairseq_commands.py", "end_to_end/test_resume.py"
SHOWN_BY = {  # replaced name -> the test that fails without the replacement
    "checkpoint_utils.load_checkpoint_to_cpu": (
        COMPAT,
        "test_a_checkpoint_with_a_namespace_loads_and_takes_overrides",
    ),
    "checkpoint_utils.load_checkpoint": (
        RESUME,
        "test_a_damaged_last_checkpoint_falls_back_to_the_newest_readable_one",
    ),
    "checkpoint_utils.PathManager": (PATCHED, "test_a_copy_that_fails_leaves_the_file_before"),
    "utils.torch": (COMPAT, "test_objects_of_any_class_can_be_broadcast_between_ranks"),
    "utils.call_main": (RESUME, "test_a_signal_saves_after_the_update_and_ends_cleanly"),
    "distributed_fairseq_model.DistributedDataParallel": (
        COMPAT,
        "test_ddp_on_the_cpu_gets_no_device_ids",
    ),
    "trainer.torch": (PATCHED, "test_the_norm_of_an_overflow_stays_where_there_is_no_gpu"),
    "MetersDict.get_smoothed_values": (
        COMPAT,
        "test_figures_without_a_value_are_left_out_of_the_log",
    ),
    "options.parse_args_and_arch": (COMPAT, "test_bf16_does_not_ask_for_a_tpu"),
    "configs.CheckpointConfig": (PATCHED, "test_the_parser_knows_the_added_flags"),
    "LR_SCHEDULER_REGISTRY.polynomial_decay": (
        "parity/test_lr_schedule.py",
        "test_a_training_follows_the_warm_up_also_when_it_resumes_in_mid_epoch",
    ),
    "fairseq_cli.generate.main": (COMMANDS, "test_what_cannot_work_is_one_line"),
    "fairseq_cli.train.Trainer": (PATCHED, "test_a_training_is_made_by_our_trainer"),
    "fairseq_cli.train.validate_and_save": (
        RESUME,
        "test_a_signal_saves_after_the_update_and_ends_cleanly",
    ),
}


def place(patch: Patch) -> str:
    if isinstance(patch.owner, str):
        return f"{patch.owner}.{patch.name}"
    if patch.owner is lr_scheduler.LR_SCHEDULER_REGISTRY:
        return f"LR_SCHEDULER_REGISTRY.{patch.name}"
    return f"{patch.owner.__name__.split('.')[-1]}.{patch.name}"


def test_few_names_are_replaced_each_by_one_patch_with_a_reason():
    assert len(PATCHES) <= 14
    places = list(map(place, PATCHES))
    assert len(set(places)) == len(places)
    assert all(inspect.getdoc(patch.make) for patch in PATCHES)


def test_no_patch_is_on_the_trainer():
    assert [place(patch) for patch in PATCHES if patch.owner is Trainer] == []


@pytest.mark.parametrize("replaced", map(place, PATCHES))
def test_every_patch_has_a_test(replaced):
    file, name = SHOWN_BY[replaced]
    assert f"def {name}(" in (TESTS / file).read_text()


def names_of_fairseq(tree: ast.Module) -> set[str]:
    """What a file imports from fairseq."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or node.names[0].name
            if module.startswith("fairseq"):
                names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return names


def replaced_in(source: str) -> list[str]:
    """Attributes of imported things that a file assigns."""
    tree = ast.parse(source)
    imported = names_of_fairseq(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
            targets = node.args[:1]
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            targets = [target.value for target in targets if isinstance(target, ast.Attribute)]
        else:
            continue
        found += [ast.unparse(target) for target in targets]
    return [name for name in found if name.split(".")[0] in imported]


def test_nothing_else_of_fairseq_is_assigned():
    folders = ("ofa", "models", "data", "criterions", "tasks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("fairseq_*.py")]
    assert len(files) > 20
    assert {str(path): found for path in files if (found := replaced_in(path.read_text()))} == {}


def test_an_assigned_attribute_of_fairseq_is_found():
    source = "from fairseq.trainer import Trainer\nTrainer.train_step = 1\nsetattr(Trainer, 'a', 1)"
    assert replaced_in(source) == ["Trainer", "Trainer"]


REVERSED = """
import sys
import ofa
import fairseq_cli.train
from ofa.trainer import fairseq_compat
fairseq_compat.PATCHES = fairseq_compat.PATCHES[::-1]
ofa.register_fairseq_plugin()
sys.argv[0] = "fairseq-train"
fairseq_cli.train.cli_main()
"""


@pytest.mark.slow
def test_the_order_of_the_patches_does_not_matter(tmp_path):
    files = make_files(tmp_path)
    more = ("--max-update=3", "--log-interval=1", "--warmup-ratio=0.5")
    usual = train(flags(files, tmp_path / "usual", *more))
    other = subprocess.run(
        [sys.executable, "-c", REVERSED, *flags(files, tmp_path / "other", *more)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert usual.code == other.returncode == 0, other.stderr[-3000:]
    assert log_lines(other.stdout) == log_lines(usual.log) != []


def test_a_name_is_replaced_once():
    module = ModuleType("module")
    module.number = 1
    patch = Patch(module, "number", lambda stock: stock + 1)
    patch.apply()
    patch.apply()
    assert module.number == 2


def test_a_training_is_made_by_our_trainer():
    assert fairseq_cli.train.Trainer is OFATrainer


def test_the_parser_knows_the_added_flags():
    parser = options.get_training_parser()
    assert CHECKPOINT_FLAGS.keys() <= {action.dest for action in parser._actions}
    assert parser.get_default("base") is None


def test_a_copy_that_fails_leaves_the_file_before(tmp_path):
    target = tmp_path / "checkpoint_last.pt"
    target.write_text("whole")
    with pytest.raises(UserError, match="the checkpoints before it are whole"):
        checkpoint_utils.PathManager.copy(str(tmp_path), str(target), overwrite=True)
    assert target.read_text() == "whole" and list(tmp_path.iterdir()) == [target]


def test_the_norm_of_an_overflow_stays_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_zeros_without_gpu(torch).tensor(0.0).cuda().device.type == "cpu"
