"""From options and flags to a training: what is refused, what it owns, what it becomes."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ofa import devices
from ofa.cli.main import main
from ofa.errors import UserError
from ofa.trainer import launch
from ofa.trainer.auto import Fit
from ofa.trainer.checks import Facts, size_of
from ofa.trainer.flags import value_of
from ofa.trainer.launch import LaunchOptions, common_flags, named_templates, precision_flags, train
from ofa.trainer.processes import Processes, ProcessOptions, data_workers


class Became(Exception):
    """In place of ``os.execve``. Args: what this process would become."""


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch):
    def become(*arguments, log_format=None):
        raise Became(*arguments)

    monkeypatch.setattr(launch, "become", become)
    monkeypatch.setattr(devices, "usable_gpus", lambda: (0, ""))
    for name in ("SLURM_NNODES", "SLURM_NODEID", "SLURM_JOB_ID", *launch.KEEP_FREED_MEMORY):
        monkeypatch.delenv(name, raising=False)


def started(options: LaunchOptions, *flags: str) -> tuple:
    """Command, environment and log of a training."""
    with pytest.raises(Became) as found:
        train("a.tsv", options, flags)
    return found.value.args


def test_a_gpu_that_torch_cannot_use_ends_the_start_before_anything_is_moved(tmp_path, monkeypatch):
    def refuse():
        raise UserError("GPU 0: no kernels")

    monkeypatch.setattr(devices, "usable_gpus", refuse)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint_last.pt").write_text("weeks of work")
    options = LaunchOptions(out=str(tmp_path / "run"), fresh=True)
    with pytest.raises(UserError, match="GPU 0: no kernels"):
        train("a.tsv", options, [])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    started(options, "--cpu")


def test_starting_over_moves_the_old_run_aside(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint_last.pt").write_text("weeks of work")
    _, _, log = started(LaunchOptions(out=str(tmp_path / "run"), fresh=True))
    (aside,) = tmp_path.glob("run.*")
    assert (aside / "checkpoint_last.pt").read_text() == "weeks of work"
    assert not (tmp_path / "run/checkpoint_last.pt").exists() and log == tmp_path / "run/train.log"


@pytest.mark.parametrize(
    "gpus, given, expected", [(0, "", "4294967296"), (0, "1000000", "1000000"), (1, "", None)]
)
def test_training_on_a_cpu_keeps_the_memory_that_it_frees(
    tmp_path, monkeypatch, gpus, given, expected
):
    monkeypatch.setattr(devices, "usable_gpus", lambda: (gpus, ""))
    for name in launch.KEEP_FREED_MEMORY:
        monkeypatch.setenv(name, given)
    _, environment, _ = started(LaunchOptions(out=str(tmp_path)))
    assert [environment.get(name) for name in launch.KEEP_FREED_MEMORY] == [expected] * 2


def test_another_node_owns_nothing_and_logs_nothing(tmp_path):
    nodes = LaunchOptions(out=str(tmp_path / "run"), nodes=2, node_rank=1, master_addr="first")
    command, *rest = started(nodes)
    assert len(rest) == 1 and not (tmp_path / "run").exists()
    assert " ".join(command[1:]).startswith(
        "-m ofa.trainer.processes --nnodes 2 --node_rank 1 --nproc_per_node 1 --master_addr first"
    )


def test_a_missing_checkpoint_is_named_before_anything_is_made(tmp_path):
    options = LaunchOptions(out=str(tmp_path / "run"), start=str(tmp_path / "none.pt"))
    with pytest.raises(UserError, match=r"--from \(RESTORE\) expects a checkpoint, found no file"):
        train("a.tsv", options, [])
    assert not (tmp_path / "run").exists()


def test_a_plan_does_without_the_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "look_at", lambda data, start, *_: Facts(entries=5 if start else 6))
    missing = str(tmp_path / "ofa_base.pt")
    flags = ["--arch=ofa_base"]
    found = launch.facts_of("a.tsv", LaunchOptions(start=missing, plan=True), flags)
    assert (size_of(found.start), found.entries) == ("ofa_base", 6)
    assert f"note: found no file {missing}" in capsys.readouterr().err
    (tmp_path / "ofa_base.pt").touch()
    assert launch.facts_of("a.tsv", LaunchOptions(start=missing, plan=True), flags).entries == 5


def test_a_misspelled_generation_option_is_named_before_anything_is_made(tmp_path):
    flags = ["--eval-cider", '--eval-args={"bean":5}']
    with pytest.raises(UserError, match="^--eval-args: .*did you mean beam"):
        train("a.tsv", LaunchOptions(out=str(tmp_path / "run")), flags)
    assert not list(tmp_path.iterdir())


def test_flags_of_the_recipe_go_before_the_options():
    words = common_flags(LaunchOptions(batch_size=4, effective_batch=30), [], processes=3)
    assert {"--batch-size=4", "--update-freq=3", "--distributed-world-size=3", "--cpu"} <= {*words}
    own = common_flags(LaunchOptions(effective_batch=64), ["--update-freq", "2", "--bf16"], gpus=1)
    assert not any(word.startswith(("--update-freq", "--fp16", "--cpu")) for word in own)
    words = common_flags(LaunchOptions(gpu_precision="memory-efficient-fp16"), [], gpus=1)
    assert {"--memory-efficient-fp16", "--fp16-scale-window=512"} <= {*words}
    started_from = LaunchOptions(start="a.pt")
    assert "--finetune-from-model=a.pt" in common_flags(started_from, [])
    assert not any("finetune" in word for word in common_flags(started_from, ["--restore-file=b"]))


def test_gpus_get_data_workers_by_cores_and_the_cpu_two(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(24))

    def workers(gpus: int, **options) -> str | None:
        return value_of("--num-workers", common_flags(LaunchOptions(**options), [], gpus=gpus))

    assert (workers(0), workers(8), workers(4), workers(1)) == ("2", "3", "6", "8")
    assert (workers(8, num_workers=1), workers(8, jobs=4)) == ("1", "6")


@pytest.mark.parametrize(
    "cores, processes, workers", [(2, 1, 2), (16, 1, 8), (64, 8, 8), (32, 8, 4), (4, 8, 2)]
)
def test_data_workers_of_a_gpu_share_the_cores(monkeypatch, cores, processes, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores))
    assert data_workers(processes) == workers


def test_the_last_value_of_a_flag_counts():
    flags = ["--lr", "1", "--lr=2", "--lrs=3"]
    assert (value_of("--lr", flags), value_of("--x", flags)) == ("2", None)


def test_a_line_is_an_option_of_the_task_template():
    line = "[image] how many? -> [text]"
    expected = ["--task=template", f"--template={line}", "--lr=1"]
    assert named_templates(["--task", line, "--lr=1"]) == expected
    assert named_templates([f"--task={line}", "--lr=1"]) == expected
    assert named_templates(["--task=caption", "--task", line, "--lr=1"]) == expected
    assert named_templates(["--task", "caption"]) == ["--task", "caption"]


def test_what_a_checkpoint_brings_is_no_flag_of_the_user(tmp_path, monkeypatch):
    seen = []

    def fit(plan, own, keep_batch):
        seen.append(list(own))
        return 8, 8, Fit(frozenset())

    monkeypatch.setattr(launch, "look_at", lambda *_, **__: Facts(carried=("--num-bins=9",)))
    monkeypatch.setattr(launch, "fit", fit)
    command, *_ = started(LaunchOptions(out=str(tmp_path), auto=True), "--lr=1")
    assert seen == [["--lr=1"]] and "--num-bins=9" in command


def test_slurm_tells_nodes_ranks_and_one_port_for_all(monkeypatch):
    monkeypatch.setenv("SLURM_NNODES", "4")
    monkeypatch.setenv("SLURM_NODEID", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "20007")
    found = Processes.of(ProcessOptions(master_addr="first"), gpus=8)
    assert found == Processes(8, 4, 3, "first", 10_007) and found.count == 32
    with pytest.raises(UserError, match="--nodes 4: expects --master-addr"):
        Processes.of(ProcessOptions(), gpus=8)


def test_rank_is_that_of_the_node_in_upstreams_scripts_alone(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    options = ProcessOptions(nodes=2, master_addr="first")
    monkeypatch.setenv("WORKER_CNT", "2")
    assert Processes.of(options, gpus=1).rank == 1
    monkeypatch.setenv("LOCAL_RANK", "1")  # torchrun's, which counts processes
    monkeypatch.setenv("SLURM_NODEID", "0")
    assert Processes.of(options, gpus=1).rank == 0
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UserError, match="^RANK: expected the number of this node, found 'first'"):
        Processes.of(options, gpus=1)


def test_a_node_of_several_without_a_number_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "1")  # without WORKER_CNT it is not upstream's
    options = ProcessOptions(nodes=2, master_addr="first")
    with pytest.raises(UserError, match=r"^--nodes 2: expects --node-rank \(or NODE_RANK\)"):
        Processes.of(options, gpus=1)


def test_a_number_of_a_node_that_there_is_not_is_refused():
    for nodes, rank in ((2, 2), (1, 1)):
        options = ProcessOptions(nodes=nodes, node_rank=rank, master_addr="first")
        expected = (
            rf"^--node-rank .* {rank}: expected the number of this node, below --nodes {nodes};"
        )
        with pytest.raises(UserError, match=expected):
            Processes.of(options, gpus=1)


@pytest.mark.parametrize(
    ("settings", "processes"), [({}, "0"), ({"NPROC": "1"}, "1"), ({"NPROC": ""}, "2")]
)
def test_a_script_takes_gpus_per_node_where_nproc_is_not_given(tmp_path, settings, processes):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$NPROC"\n')
    python.chmod(0o755)
    if settings:
        settings = {**settings, "GPUS_PER_NODE": "2"}
    script = Path(__file__).parents[2] / "run_scripts/caption/train_stage1.sh"
    environment = {"PATH": os.environ["PATH"], "OFA_EXECUTABLE": str(python), **settings}
    found = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
    assert found.stdout == f"{processes}\n"


def test_settings_of_upstreams_scripts_are_read(monkeypatch, capsys):
    for name, value in {"GPUS_PER_NODE": "2", "WORKER_CNT": "3", "MASTER_ADDR": "first"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NODE_RANK", "1")
    assert main(["train", "a.tsv", "--task=caption", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "--nnodes 3 --node_rank 1 --nproc_per_node 2 --master_addr first" in printed


def test_recipes_are_known_by_name_task_and_alias():
    from ofa.cli.train import recipe_of, recipes

    assert {"caption-stage1", "caption-stage2", "vqa", "glue", "pretraining"} <= {*recipes()}
    for name, folder, settings in (
        ("caption", "caption", {}),
        ("answer", "vqa", {}),
        ("rte", "glue", {"DATASET": "rte"}),
        ("joint", "joint", {}),
        ("instruction", "template", {"TASK": "instruction"}),
        ("[image] what? -> [text]", "template", {"TASK": "[image] what? -> [text]"}),
    ):
        script, found = recipe_of(name)
        assert (script.parent.name, found) == (folder, settings)
    for name, meant in (("image_classfy", "image_classify"), ("captoin", "caption")):
        with pytest.raises(UserError, match=f"did you mean {meant}[?]"):
            recipe_of(name)


@pytest.mark.parametrize(
    "task, names",
    [
        ("classify", ("image_classify_train.tsv", "image_classify_val.tsv")),
        ("cola", ("cola_train.tsv", "cola_val.tsv")),
        ("mnli", ("mnli_train.tsv", "mnli_dev_matched.tsv")),
        ("summarize", ("gigaword_train.tsv", "gigaword_val.tsv")),
        ("grounded_qa", ("grounded_qa_train.tsv", "grounded_qa_val.tsv")),
    ],
)
def test_own_data_are_found_by_the_names_of_their_task(tmp_path, task, names):
    from ofa.cli.train import files_of_task, recipe_of

    script, settings = recipe_of(task)
    assert files_of_task(str(tmp_path), script, settings) is None  # the recipe names them
    for name in names:
        (tmp_path / name).touch()
    found = files_of_task(str(tmp_path), script, settings)
    assert found == ",".join(str(tmp_path / name) for name in names)


def test_the_files_of_a_recipe_go_before_others_of_its_task(tmp_path):
    from ofa.cli.train import files_of_task, recipe_of

    for name in ("caption_stage1_train.tsv", "caption_train.tsv", "caption_val.tsv"):
        (tmp_path / name).touch()
    assert files_of_task(str(tmp_path), *recipe_of("caption")) is None


def test_a_folder_that_is_called_as_a_task_does_not_take_its_place(tmp_path, monkeypatch):
    from ofa.cli.train import names_files

    monkeypatch.chdir(tmp_path)
    for name in ("caption", "cola", "photos"):
        Path(name).mkdir()
    assert [names_files(name) for name in ("caption", "cola", "photos")] == [False, False, True]


def test_own_data_are_trained_on_from_random_weights_unless_a_checkpoint_is_named(
    monkeypatch, tmp_path
):
    from ofa.cli import train as command

    def run_script(*arguments):
        raise Became(*arguments)

    monkeypatch.setattr(command, "run_script", run_script)
    words = ["train", "caption", "--data", str(tmp_path), "--size", "nano", "--lr=1"]
    for arguments, start in (([], "none"), (["--from", "a.pt"], "a.pt")):
        with pytest.raises(Became) as found:
            main([*words, *arguments])
        script, settings, flags = found.value.args
        assert script.parts[-2:] == ("caption", "train_stage1.sh") and flags == ["--lr=1"]
        assert settings["RESTORE"] == start and settings["DATA_DIR"] == str(tmp_path)
        assert settings["SIZE"] == "nano"


@pytest.fixture
def own_environment(monkeypatch):
    """A recipe leaves its settings in this process's environment."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_a_recipe_is_trained_in_the_process_that_was_asked_for_it(own_environment, capsys):
    arguments = [
        "train",
        "caption-stage1",
        "--from",
        "none",
        "--size",
        "nano",
        "--lr=3",
        "--dry-run",
    ]
    assert main(arguments) == 0
    words = capsys.readouterr().out.split()  # of this process alone
    assert "--arch=ofa_nano" in words and words.index("--lr=1e-5") < words.index("--lr=3")
    assert "--update-freq=16" in words  # EFFECTIVE_BATCH=128, which the script exports


def test_a_mixture_in_one_line_is_trained_from_random_weights_without_files(
    own_environment, tmp_path, capfd
):
    words = ["train", "joint", "--mixture=caption=a.tsv,b.tsv*2", "--size=nano", "--dry-run"]
    assert main([*words, f"--out={tmp_path}/run", "--no-auto"]) == 0
    printed = capfd.readouterr().out
    assert "fairseq_cli.train '' --user-dir" in printed and "--task=joint" in printed
    assert "--finetune-from-model" not in printed


def test_a_script_that_refuses_a_setting_ends_the_command(own_environment, monkeypatch, capfd):
    monkeypatch.setenv("DATASET", "coca")
    assert main(["train", "caption-stage1"]) == 2
    assert capfd.readouterr().err == "DATASET expects coco or muge; found 'coca'\n"


def test_a_script_of_several_trainings_takes_the_place_of_the_command(monkeypatch):
    from ofa.cli import train as command

    def become(words, environment):
        raise Became(words, environment)

    monkeypatch.setattr(command, "become", become)
    monkeypatch.setenv("SWEEP", "1")
    with pytest.raises(Became) as found:
        main(["train", "rte", "--seed=2"])
    words, settings = found.value.args
    assert Path(words[1]).parts[-2:] == ("glue", "train.sh") and words[2:] == ["--seed=2"]
    assert os.access(settings["OFA_EXECUTABLE"], os.X_OK)


def test_stage_2_on_own_data_asks_for_stage_1(capsys, tmp_path):
    assert main(["train", "caption-stage2", "--data", str(tmp_path)]) == 2
    assert "run caption-stage1 first and name its checkpoint_best.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, auto, chosen",
    [
        ([], "1", "1"),
        (["--batch-size=4"], "1", "1 batch"),
        (["--no-auto"], "", None),
        (["--size", "base"], "1", "1"),
    ],
)
def test_own_data_are_fitted_unless_the_recipe_is_asked_for(
    monkeypatch, tmp_path, more, auto, chosen
):
    from ofa.cli import train as command

    def run_script(*arguments):
        raise Became(*arguments)

    monkeypatch.setattr(command, "run_script", run_script)
    monkeypatch.setattr(devices, "count_without_torch", lambda: (0, ""))
    with pytest.raises(Became) as found:
        main(["train", "caption", "--data", str(tmp_path), *more, "--lr=1"])
    _, settings, _ = found.value.args
    assert (settings["OFA_AUTO"], settings.get("OFA_CHOSEN")) == (auto, chosen)
    assert settings.get("SIZE") == (more[1] if "--size" in more else "nano" if auto else None)


def test_a_training_takes_size_and_vocabulary_of_its_checkpoint(monkeypatch, tmp_path):
    import torch

    from ofa.cli import train as command

    weights = {"encoder.embed_tokens.weight": torch.zeros(20, 512)}
    options = {"_name": "caption", "bpe_dir": str(tmp_path)}
    torch.save({"model": weights, "cfg": {"task": options}}, tmp_path / "a.pt")
    found = command.size_and_vocabulary(command.TrainOptions(start=str(tmp_path / "a.pt")))
    assert found == {"SIZE": "medium", "BPE_DIR": str(tmp_path)}


@pytest.mark.parametrize("auto", [["--auto"], []])
def test_a_script_that_is_asked_to_fit_its_recipe_is_refused(capsys, monkeypatch, auto):
    monkeypatch.setenv("OFA_RECIPE", "1")
    monkeypatch.setenv("OFA_AUTO", "" if auto else "1")
    assert main(["train", "a.tsv", "--task=caption", *auto, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "--auto (OFA_AUTO): expected with a recipe's name" in error and error.count("\n") == 1


def test_data_that_are_not_there_are_named(capsys):
    assert main(["train", "caption", "--data", "nothing"]) == 2
    assert "--data nothing: expected a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("caption/train_caption_stage1_base.sh", "did you mean caption-stage1?"),
        ("train_caption_stage2.sh", "did you mean caption-stage2?"),
        ("vqa/train_vqa_distributed.sh", "did you mean vqa?"),
        ("mine.sh", "see ofa train --list"),
        ("no/a.tsv,no/b.tsv", "error: no/a.tsv: expected a TSV file, found no such file"),
        (__file__, "expected the task of these files (--task caption or another), found none"),
    ],
)
def test_what_is_no_data_of_a_task_is_refused_and_leaves_nothing(
    monkeypatch, tmp_path, capsys, what, found
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", what]) == 2
    out, err = capsys.readouterr()
    assert found in err and err.count("\n") == 1 and out == "" and not list(tmp_path.iterdir())


def test_what_belongs_to_a_recipe_is_refused_behind_files(capsys, monkeypatch):
    assert main(["train", "a.tsv", "--task=caption", "--size", "nano", "--dry-run"]) == 2
    assert "--size nano: expected with the name of a recipe" in capsys.readouterr().err
    monkeypatch.setenv("OFA_RECIPE", "1")
    assert main(["train", "caption", "--from", "none", "--dry-run"]) == 2
    assert "before a script it is RESTORE=none" in capsys.readouterr().err
    assert "OFA_RECIPE" not in os.environ


def test_a_checkpoint_to_resume_takes_the_place_of_one_to_start_from(tmp_path):
    options = LaunchOptions(out=str(tmp_path / "run"), start=str(tmp_path / "none.pt"))
    command, *_ = started(options, "--restore-file=mine.pt")
    assert not any(word.startswith("--finetune-from-model") for word in command)


def test_empty_settings_of_slurm_are_none(monkeypatch):
    for name in ("SLURM_NNODES", "SLURM_NODEID", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "")
    assert Processes.of(ProcessOptions(), gpus=2).count == 2


H100, V100, UNKNOWN = (devices.Gpu("GPU", capability) for capability in ((9, 0), (7, 0), None))


@pytest.mark.parametrize(
    ("gpus", "found"),
    [([H100, H100], "--bf16"), ([H100, V100], "--fp16"), ([UNKNOWN], "--fp16"), ([], "--fp16")],
)
def test_the_precision_is_bf16_where_every_gpu_has_it(monkeypatch, tmp_path, gpus, found):
    monkeypatch.setattr(devices, "described_gpus", lambda: (gpus, ""))
    options = LaunchOptions(out=str(tmp_path))
    assert precision_flags(options, len(gpus) or 1)[:1] == [found]
    assert precision_flags(options, 0) == []


def test_a_recipe_and_a_user_choose_another_precision(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "described_gpus", lambda: ([H100], ""))
    recipe = LaunchOptions(out=str(tmp_path), gpu_precision="memory-efficient-fp16")
    assert precision_flags(recipe, 1) == ["--memory-efficient-fp16", "--fp16-scale-window=512"]
    assert precision_flags(replace(recipe, precision="fp32"), 1) == []
    assert "--bf16" not in common_flags(LaunchOptions(out=str(tmp_path)), ["--fp16"], gpus=1)


@pytest.mark.parametrize("flags", [["--fp16", "--bf16"], ["--memory-efficient-bf16"], ["--amp"]])
def test_two_precisions_are_refused(tmp_path, flags):
    with pytest.raises(UserError, match="expected one, found .*; leave one out"):
        common_flags(LaunchOptions(out=str(tmp_path), precision="fp16"), flags)


def test_fp16_in_memory_efficient_form_is_fp16(tmp_path):
    flags = ["--fp16", "--memory-efficient-fp16"]
    assert common_flags(LaunchOptions(out=str(tmp_path), precision="fp16"), flags)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("bf16: false\nfp16: true\nlr: [1.0]\n", ["--fp16", "--fp16-scale-window=512"]),
        ("bf16: false\nfp16: false\n", []),
    ],
)
def test_a_run_that_is_resumed_keeps_its_precision(monkeypatch, tmp_path, options, found):
    monkeypatch.setattr(devices, "described_gpus", lambda: ([H100], ""))
    (tmp_path / "config.yaml").write_text(options)
    resumed = LaunchOptions(out=str(tmp_path))
    assert precision_flags(resumed, 1) == found
    assert precision_flags(replace(resumed, fresh=True), 1) == ["--bf16"]
