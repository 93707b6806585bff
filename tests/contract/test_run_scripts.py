"""Every run script: short, runnable from anywhere, and made of flags that fairseq and our
commands know."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dry_runs import ROOT, after, dry_run

TRAIN = [sys.executable, "-m", "ofa", "train"]
# A demo is a series of stages, tested in tests/end_to_end; everything else is one experiment.
EXPERIMENTS = sorted(
    path for path in (ROOT / "run_scripts").glob("*/*.sh") if path.name != "demo.sh"
)
SIZES = ("nano", "tiny", "medium", "base", "large", "huge")
TRAINING = [path for path in EXPERIMENTS if path.name.startswith(("train", "pretrain"))]
EVALUATION = [path for path in EXPERIMENTS if path.name.startswith("evaluate")]


def size_branches(script: Path) -> list[list[str]]:
    """Sizes that each branch of a script's ``case $SIZE`` names; [] without such a ``case``."""
    cases = re.findall(r"^case \S*\$SIZE in(.*?)^esac", script.read_text(), re.M | re.S)
    labels = re.findall(r"^ {4}([\w*,| ]+)\)", "".join(cases), re.M)
    return [
        named
        for label in labels
        if (named := [size for size in SIZES if re.search(rf"\b{size}\b", label)])
    ]


def sizes_that_differ(scripts: list[Path]) -> list:
    """Cases (script, size): a size of each branch, and ``base`` where no branch names it."""
    cases = []
    for script in scripts:
        branches = size_branches(script)
        differing = [named[0] for named in branches] + ["base"] * all(
            "base" not in named for named in branches
        )
        cases += [
            pytest.param(script, size, id=f"{script.parent.name}/{script.name}-{size}")
            for size in differing
        ]
    return cases


def program(path: Path, commands: str) -> Path:
    """Write an executable that takes the place of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{commands}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.name)
def test_an_experiment_is_a_header_and_what_differs(script):
    lines = script.read_text().splitlines()
    assert len(lines) <= 50
    assert lines[0] == "#!/usr/bin/env bash" and lines[1].startswith("# Purpose:")
    assert '. "$(dirname "${BASH_SOURCE:-$0}")/../recipe.sh" || exit' in lines
    assert '"$@"' in script.read_text()


def test_every_script_prints_its_header_also_when_sh_runs_it():
    scripts = [*(ROOT / "run_scripts").glob("*/*.s*"), *(ROOT / "run_scripts").glob("*.sh")]
    sourced = {"recipe.sh", "captions.sh", "tuning.sh", "errors.sh"}
    scripts = [script for script in scripts if script.name not in sourced]
    printed = {
        str(script): subprocess.run(["sh", script, "--help"], capture_output=True, text=True)
        for script in scripts
    }
    assert len(scripts) > 30
    assert not [name for name, done in printed.items() if not done.stdout.startswith("Purpose:")]
    assert not [name for name, done in printed.items() if done.returncode or done.stderr]


@pytest.mark.parametrize(
    "given, meant",
    [("LR=1e-4", "--lr=1e-4"), ("max_epoch=3", "--max-epoch=3"), ("BATCH_SIZE=4", "BATCH=4")],
)
def test_a_setting_that_only_looks_like_one_is_refused_with_what_is_meant(given, meant):
    done = subprocess.run(
        ["env", given, "DRY_RUN=1", "bash", ROOT / "run_scripts/caption/train_stage1.sh"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and f"found {given}; write {meant}\n" in done.stderr


def test_a_script_that_reads_a_setting_keeps_it():
    assert "--lr=1e-3" in dry_run(ROOT / "run_scripts/glue/train.sh", LR="1e-3")


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.name)
def test_a_script_that_refuses_unknown_sizes_has_a_branch_for_every_known_one(script):
    named = sorted(size for branch in size_branches(script) for size in branch)
    assert named == sorted(SIZES) or "SIZE expects" not in script.read_text()


@pytest.mark.parametrize("script, size", sizes_that_differ(TRAINING))
def test_fairseq_parses_every_training_script(script, size, parse_training):
    args = parse_training(after(dry_run(script, SIZE=size), "fairseq_cli.train"))
    assert args.arch == f"ofa_{size}" and args.cpu and Path(args.user_dir) == ROOT / "ofa"


def test_the_table_of_known_flags_is_that_of_fairseqs_parser(parse_training):
    from ofa.trainer.fairseq_flags import declared_flags
    from ofa.trainer.flags import TABLE

    assert TABLE.read_text().splitlines() == declared_flags(), (
        "run: python -m ofa.trainer.fairseq_flags"
    )


def test_flags_on_the_command_line_win(parse_training):
    words = dry_run(
        ROOT / "run_scripts/caption/train_stage1.sh",
        "--lr=3e-3",
        "--patch-image-size=64",
        SIZE="base",
    )
    args = parse_training(after(words, "fairseq_cli.train"))
    assert args.lr == [3e-3] and args.patch_image_size == 64


@pytest.mark.parametrize("size, epochs, drop_worst_after", [("base", 5, 6000), ("large", 2, 2500)])
def test_caption_stage_1_has_upstreams_numbers(size, epochs, drop_worst_after, parse_training):
    words = dry_run(ROOT / "run_scripts/caption/train_stage1.sh", SIZE=size, NPROC="4")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.max_epoch, args.drop_worst_after, args.drop_worst_ratio) == (
        epochs,
        drop_worst_after,
        0.2,
    )
    assert (args.lr, args.warmup_ratio, args.label_smoothing, args.patch_image_size) == (
        [1e-5],
        0.06,
        0.1,
        480,
    )
    assert (args.encoder_drop_path_rate, args.decoder_drop_path_rate, args.dropout) == (
        0.1,
        0.1,
        0.1,
    )
    assert (args.max_src_length, args.max_tgt_length, args.selected_cols) == (80, 20, "0,4,2")
    assert args.freeze_encoder_embedding and args.freeze_decoder_embedding and args.eval_cider
    assert args.best_checkpoint_metric == "cider" and args.maximize_best_checkpoint_metric
    assert args.batch_size * 4 * args.update_freq[0] == 128


STAGE2 = ROOT / "run_scripts/caption/train_stage2.sh"


@pytest.mark.parametrize("size", ["base", "large"])
def test_caption_stage_2_has_upstreams_numbers(size, parse_training):
    words = dry_run(STAGE2, SIZE=size, NPROC="8", CUDA_VISIBLE_DEVICES="0,1,2,3,4,5,6,7")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.criterion, args.scst, args.selected_cols, args.max_epoch) == (
        "scst_reward_criterion",
        True,
        "1,4,2",
        3,
    )
    assert (args.lr, args.end_learning_rate, args.warmup_ratio) == ([1e-5], 2e-7, 0.06)
    assert (args.dropout, args.encoder_drop_path_rate, args.decoder_drop_path_rate) == (
        0.0,
        0.0,
        0.0,
    )
    assert (args.batch_size, args.update_freq, args.distributed_world_size) == (2, [4], 8)
    assert json.loads(args.scst_args) == {"beam": 5, "max_len_b": 16, "no_repeat_ngram_size": 3}
    assert args.memory_efficient_fp16 and "--fp16" not in words
    assert args.freeze_resnet and args.freeze_encoder_embedding and args.freeze_decoder_embedding
    assert args.scst_cider_cached_tokens.endswith(
        "dataset/caption_data/cider_cached_tokens/coco-train-words.p"
    )
    assert (args.patch_image_size, args.max_src_length, args.max_tgt_length) == (480, 80, 20)


@pytest.mark.parametrize(
    "size, length, drop", [("base", (15, 0.04, 0), 0.1), ("large", (0, 0, 1000), 0.2)]
)
def test_question_answering_has_upstreams_numbers(size, length, drop, parse_training):
    words = dry_run(ROOT / "run_scripts/vqa/train.sh", SIZE=size, NPROC="32")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.max_epoch or 0, args.warmup_ratio or 0, args.warmup_updates or 0) == length
    assert (
        args.max_update == (40000 if size == "large" else 0) and args.encoder_drop_path_rate == drop
    )
    assert (args.lr, args.label_smoothing, args.patch_image_size, args.selected_cols) == (
        [5e-5],
        0.1,
        480,
        "0,5,2,3,4",
    )
    assert (
        args.max_src_length,
        args.max_tgt_length,
        args.max_object_length,
        args.valid_batch_size,
    ) == (80, 30, 30, 20)
    assert (
        args.add_object
        and args.freeze_encoder_embedding
        and args.freeze_decoder_embedding
        and not args.unconstrained_training
    )
    assert (args.prompt_type, args.val_inference_type) == ("prev_output", "allcand")
    assert args.ans2label_file.endswith("dataset/vqa_data/trainval_ans2label.pkl")
    assert args.store_ema and args.uses_ema and args.ema_fp32 and args.ema_decay == 0.9999
    assert (
        args.batch_size * 32 * args.update_freq[0] == 512
        and args.best_checkpoint_metric == "vqa_score"
    )


@pytest.mark.parametrize(
    "size, lr, epochs, drop", [("base", 5e-5, 5, 0.1), ("large", 2e-5, 6, 0.2)]
)
def test_entailment_has_upstreams_numbers(size, lr, epochs, drop, parse_training):
    words = dry_run(ROOT / "run_scripts/snli_ve/train.sh", SIZE=size, NPROC="8")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.lr, args.max_epoch, args.warmup_ratio, args.label_smoothing) == (
        [lr],
        epochs,
        0.06,
        0.0,
    )
    assert (
        args.encoder_drop_path_rate,
        args.patch_image_size,
        args.max_src_length,
        args.max_tgt_length,
    ) == (drop, 480, 80, 20)
    assert (
        args.add_caption and args.prompt_type == "prev_output" and not args.freeze_encoder_embedding
    )
    assert (
        args.batch_size * 8 * args.update_freq[0] == 256
        and args.best_checkpoint_metric == "snli_score"
    )


def test_image_classification_has_upstreams_numbers(parse_training):
    words = dry_run(ROOT / "run_scripts/image_classify/train.sh", NPROC="16")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.lr, args.max_update, args.warmup_updates, args.label_smoothing) == (
        [5e-5],
        160000,
        1000,
        0.1,
    )
    assert (
        args.max_src_length,
        args.max_tgt_length,
        args.selected_cols,
        args.patch_image_size,
    ) == (128, 30, "0,2", 480)
    assert args.imagenet_default_mean_and_std and args.ans2label_file.endswith(
        "imagenet_1k_data/class2label_new.pkl"
    )
    assert (
        args.batch_size * 16 * args.update_freq[0] == 256 and args.best_checkpoint_metric == "score"
    )


# processes and rows of each, selected columns, updates between validations, figure; rows per update
# of the sweep
GLUE = {
    "cola": (2, 16, "1,2", 10, "mcc", {32, 64, 128}),
    "mnli": (8, 8, "0,1,2", 1000, "acc", {128, 256}),
    "mrpc": (2, 16, "0,1,2", 10, "acc", {32, 64, 128}),
    "qnli": (8, 8, "1,2,3", 500, "acc", {128, 256}),
    "qqp": (8, 8, "3,4,5", 1000, "acc", {128, 256}),
    "rte": (2, 8, "1,2,3", 10, "acc", {32, 64, 128}),
    "sst2": (4, 16, "0,1", 50, "acc", {64, 128}),
}


@pytest.mark.parametrize("task", GLUE)
def test_glue_has_upstreams_numbers(task, parse_training):
    processes, rows, columns, updates, figure, batches = GLUE[task]
    words = dry_run(ROOT / "run_scripts/glue/train.sh", DATASET=task, NPROC=str(processes))
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.task, args.selected_cols, args.best_checkpoint_metric, args.prompt_type) == (
        task,
        columns,
        figure,
        "src",
    )
    assert (
        args.batch_size,
        args.label_smoothing,
        args.warmup_ratio,
        args.encoder_drop_path_rate,
    ) == (rows, 0.0, 0.06, 0.1)
    assert (args.max_src_length, args.max_tgt_length, args.validate_interval_updates) == (
        512,
        30,
        updates,
    )
    assert args.max_epoch in (5, 7, 10) and args.lr[0] in (1e-4, 7e-5, 6e-5, 5e-5, 3e-5)
    assert (
        args.batch_size * processes * args.update_freq[0] in batches
        and args.maximize_best_checkpoint_metric
    )
    dev = f"{ROOT}/dataset/glue_data/{task}_dev{'_matched' * (task == 'mnli')}.tsv"
    assert args.data.endswith(f"glue_data/{task}_train.tsv,{dev}")


def test_the_sweep_of_a_glue_task_is_upstream(tmp_path):
    stub = program(tmp_path / "python", 'echo "$SAVE_DIR $EFFECTIVE_BATCH $*"')
    command = ["bash", ROOT / "run_scripts/glue/train.sh", "--seed=2"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "SWEEP": "1", "DATASET": "rte", "OFA_EXECUTABLE": str(stub)},
        check=True,
    )
    runs = done.stdout.splitlines()
    assert (
        len(runs) == 45
        and len({run.split()[0] for run in runs}) == 45
        and all("--seed=2" in run for run in runs)
    )
    assert (
        sum("--lr=7e-5" in run and "--max-epoch=10" in run and " 128 " in run for run in runs) == 1
    )


def test_summaries_have_upstreams_numbers(parse_training):
    from ofa.cli.main import build_parser

    args = parse_training(
        after(dry_run(ROOT / "run_scripts/gigaword/train.sh", NPROC="4"), "fairseq_cli.train")
    )
    assert (args.lr, args.max_epoch, args.warmup_ratio, args.label_smoothing, args.noise_ratio) == (
        [1e-4],
        6,
        0.06,
        0.1,
        0.2,
    )
    assert (args.batch_size, args.update_freq, args.max_src_length, args.max_tgt_length) == (
        64,
        [2],
        512,
        64,
    )
    assert json.loads(args.eval_args) == {
        "beam": 6,
        "lenpen": 0.7,
        "max_len_b": 32,
        "no_repeat_ngram_size": 3,
    }
    assert (
        args.eval_rouge and args.eval_print_samples and args.best_checkpoint_metric == "rougeL_f1"
    )
    assert (
        args.validate_interval_updates == args.save_interval_updates == 2500
        and args.encoder_drop_path_rate == 0.1
    )
    words = dry_run(ROOT / "run_scripts/gigaword/evaluate.sh")
    found = build_parser().parse_args(words[words.index("evaluate") :])
    assert (
        found.beam,
        found.lenpen,
        found.max_len_b,
        found.no_repeat_ngram_size,
        found.batch_size,
    ) == (6, 0.7, 32, 3, 32)


PRETRAINING = ROOT / "run_scripts/pretraining/pretrain.sh"


@pytest.mark.parametrize(
    "size, pixels, patches",
    [("tiny", 256, 87), ("base", 384, 196), ("large", 384, 196), ("huge", 384, 196)],
)
def test_pretraining_has_upstreams_numbers(size, pixels, patches, parse_training):
    words = dry_run(
        PRETRAINING,
        SIZE=size,
        NPROC="8",
        NNODES="4",
        NODE_RANK="0",
        MASTER_ADDR="node0",
        CUDA_VISIBLE_DEVICES="0,1,2,3,4,5,6,7",
    )
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.lr, args.max_epoch, args.warmup_ratio, args.label_smoothing, args.clip_norm) == (
        [1e-4],
        50,
        0.01,
        0.0,
        5.0,
    )
    assert (args.encoder_drop_path_rate, args.decoder_drop_path_rate, args.dropout) == (
        0.1,
        0.1,
        0.1,
    )
    assert (args.batch_size, args.update_freq, args.distributed_world_size) == (4, [1], 32)
    assert (args.max_src_length, args.max_tgt_length, args.max_image_size) == (80, 30, 512)
    assert (args.patch_image_size, args.sample_patch_num) == (pixels, patches)
    assert args.disable_validation and args.fp16 and args.fp16_scale_window == 128
    assert (args.keep_last_epochs, args.save_interval_updates) == (
        15,
        6000,
    ) and not args.freeze_encoder_embedding
    assert args.data.endswith(
        "pretrain_data/vision_language_examples.tsv"
    ) and args.neg_sample_dir.endswith("negative_sample")
    assert args.text_data and args.image_data and args.detection_data and args.task_weights is None


def test_pretraining_takes_what_data_there_are(tmp_path, parse_training):
    """In a real start, which ends at the missing checkpoint, only files that exist are asked
    for."""
    (tmp_path / "text_examples.tsv").touch()
    words = dry_run(
        PRETRAINING,
        DATA="a.tsv,b.tsv",
        VALID="v.tsv",
        TEXT="t.tsv,tv.tsv",
        WEIGHTS="qa=2",
        NEGATIVES="/negatives",
    )
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.data, args.text_data, args.task_weights) == (
        "a.tsv,b.tsv,v.tsv",
        "t.tsv,tv.tsv",
        "qa=2",
    )
    assert (
        args.best_checkpoint_metric == "loss"
        and not args.disable_validation
        and args.neg_sample_dir == "/negatives"
    )
    stub = program(tmp_path / "python", 'printf "%s\\n" "$@"')
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "WEIGHTS": "qa=2"}
    environment["OFA_EXECUTABLE"] = str(stub)
    environment.pop("DRY_RUN", None)
    words = subprocess.run(
        ["bash", PRETRAINING], capture_output=True, text=True, env=environment, check=True
    ).stdout.splitlines()
    assert (
        f"--text-data={tmp_path}/text_examples.tsv" in words
        and "--task-weights=qa=2,image_text_matching=0" in words
    )
    assert not any(
        word.startswith(("--image-data", "--detection-data", "--neg-sample-dir")) for word in words
    )


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("allcand", ("allcand", None)),
        ("beam", ("beamsearch", None)),
        ("unconstrained", (None, True)),
    ],
)
def test_questions_are_answered_in_three_ways(mode, expected):
    from ofa.cli.main import build_parser

    words = dry_run(ROOT / "run_scripts/vqa/evaluate.sh", MODE=mode, SPLIT="test")
    args = build_parser().parse_args(words[words.index("evaluate") :])
    assert (args.val_inference_type, args.unconstrained_training) == expected and args.ema
    assert args.data.endswith("vqa_test.tsv") and args.gen_subset == "test"
    assert (
        not build_parser()
        .parse_args(dry_run(ROOT / "run_scripts/vqa/evaluate.sh", NO_EMA="1")[3:])
        .ema
    )


@pytest.mark.parametrize(
    "script, setting",
    [
        *(
            (f"{task}/{script}.sh", {"SPLIT": "tset"})
            for task, script in (
                ("vqa", "evaluate"),
                ("vqa", "evaluate_zeroshot"),
                ("snli_ve", "evaluate"),
                ("image_classify", "evaluate_zeroshot"),
            )
        ),
        ("glue/evaluate.sh", {"SPLIT": "dev_matched"}),
        ("glue/train.sh", {"DATASET": "wnli"}),
        ("gigaword/evaluate.sh", {"SPLIT": "valid"}),
        ("vqa/evaluate.sh", {"MODE": "guess"}),
        ("snli_ve/train.sh", {"SIZE": "giant"}),
    ],
    ids=str,
)
def test_an_unknown_split_mode_or_size_lists_the_known_ones(script, setting):
    ((name, value),) = setting.items()
    environment = os.environ | {"DRY_RUN": "1", "OFA_VENV": sys.prefix} | setting
    done = subprocess.run(
        ["bash", ROOT / "run_scripts" / script], capture_output=True, text=True, env=environment
    )
    assert (
        done.returncode == 2
        and f"{name} expects" in done.stderr
        and f"found '{value}'" in done.stderr
    )


def test_stage_2_finds_the_best_checkpoint_of_stage_1(tmp_path):
    """In a copy of the scripts, beside a run of stage 1 and beside upstream's archive."""
    shutil.copytree(ROOT / "run_scripts", tmp_path / "run_scripts")
    script = tmp_path / "run_scripts/caption/train_stage2.sh"

    def restored(**settings) -> str:
        (found,) = (
            word
            for word in dry_run(script, **settings)
            if word.startswith("--finetune-from-model=")
        )
        return found.partition("=")[2]

    own, upstream = (
        tmp_path / "runs/caption_stage1_large/checkpoint_best.pt",
        tmp_path / "checkpoints/caption_stage1_best.pt",
    )
    assert restored(SIZE="large") == str(own), "named in the message that it is missing"
    for path in (upstream, own):
        path.parent.mkdir(parents=True)
        path.touch()
        assert restored(SIZE="large") == str(path)
    assert restored(SIZE="base") == str(tmp_path / "runs/caption_stage1_base/checkpoint_best.pt")
    assert restored(SIZE="large", RESTORE="/mine.pt") == "/mine.pt"
    (own.parent / "interrupted").touch()
    with pytest.raises(AssertionError, match="stage 1 was interrupted.*finish it"):
        restored(SIZE="large")
    assert restored(SIZE="large", RESTORE=str(own)) == str(own)


def test_embeddings_are_frozen_only_when_they_were_pretrained():
    script = ROOT / "run_scripts/caption/train_stage1.sh"
    assert "--freeze-encoder-embedding" in dry_run(script)
    assert "--freeze-encoder-embedding" not in dry_run(script, RESTORE="none")


@pytest.mark.parametrize(
    "processes, nodes, update_freq", [(1, 1, 16), (4, 1, 4), (8, 1, 2), (8, 2, 1), (3, 1, 6)]
)
def test_the_effective_batch_is_kept_for_any_number_of_processes(processes, nodes, update_freq):
    words = dry_run(
        ROOT / "run_scripts/caption/train_stage1.sh",
        NPROC=str(processes),
        NNODES=str(nodes),
        NODE_RANK="0",
        MASTER_ADDR="node0",
    )
    assert f"--update-freq={update_freq}" in words
    if processes * nodes > 1:
        assert "ofa.trainer.processes" in words
        assert f"--distributed-world-size={processes * nodes}" in words


def test_several_nodes_are_passed_to_torchrun():
    words = dry_run(
        ROOT / "run_scripts/caption/train_stage1.sh",
        NPROC="8",
        NNODES="4",
        NODE_RANK="2",
        MASTER_ADDR="node0",
        MASTER_PORT="1051",
    )
    torchrun = " ".join(after(words, "ofa.trainer.processes")[:11])
    assert (
        torchrun
        == "--nnodes 4 --node_rank 2 --nproc_per_node 8 --master_addr node0 --master_port 1051 -m"
    )


def test_gpus_train_in_half_precision_and_the_cpu_does_not():
    script = ROOT / "run_scripts/caption/train_stage1.sh"
    assert "--fp16" not in dry_run(script)
    words = dry_run(script, CUDA_VISIBLE_DEVICES="0,1")
    assert "--fp16" in words and "--cpu" not in words and "--distributed-world-size=2" in words


@pytest.mark.parametrize("visible", ["-1", "-1,0", "none", "NoDevFiles", "0,0"])
def test_hidden_gpus_are_not_trained_on(visible):
    words = dry_run(ROOT / "run_scripts/caption/train_stage1.sh", CUDA_VISIBLE_DEVICES=visible)
    assert "--cpu" in words and "--fp16" not in words and "ofa.trainer.processes" not in words


@pytest.mark.parametrize(
    "commands, processes, note",
    [
        ("echo 'GPU 0: NVIDIA V100 (UUID: GPU-a)'; echo 'GPU 1: NVIDIA V100 (UUID: GPU-b)'", 2, ""),
        (
            (
                "echo 'GPU 0: NVIDIA A100 (UUID: GPU-a)'; echo '  MIG 1g.5gb Device 0: (UUID:"
                " MIG-a)'; echo '  MIG 1g.5gb Device 1: (UUID: MIG-b)'"
            ),
            1,
            "",
        ),
        (
            "echo 'failed because there is no driver'; exit 9",
            0,
            "failed because there is no driver",
        ),
        ("exit 6", 0, "exit status 6"),
        ("exit 0", 0, "lists no GPU"),
    ],
)
def test_nvidia_smi_decides_a_dry_run_and_may_fail(
    tmp_path, monkeypatch, commands, processes, note
):
    program(tmp_path / "nvidia-smi", commands)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "DRY_RUN": "1",
        "OFA_VENV": sys.prefix,
    }
    command = [*TRAIN, "a.tsv", "--arch=ofa_nano"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert ("--fp16" in done.stdout, "--cpu" in done.stdout) == (processes > 0, processes == 0)
    assert ("--nproc_per_node 2" in done.stdout) == (processes == 2)
    assert note in done.stderr and len(done.stderr.splitlines()) == bool(note)


def test_an_unknown_precision_stops_before_the_start(tmp_path):
    environment = os.environ | {"OFA_VENV": sys.prefix, "PRECISION": "fp8", "DRY_RUN": "1"}
    done = subprocess.run([*TRAIN, "a.tsv"], capture_output=True, text=True, env=environment)
    assert (
        done.returncode == 2
        and done.stdout == ""
        and "PRECISION expects one of fp32" in done.stderr
        and "'fp8'" in done.stderr
    )


@pytest.mark.parametrize(
    "name, value",
    [
        *((name, "x") for name in ("BATCH", "EFFECTIVE_BATCH", "NNODES", "MASTER_PORT")),
        *(("NPROC", value) for value in ("x", "-1", "1.5", "a[0]")),
        *(("NODE_RANK", value) for value in ("x", "-1")),
    ],
)
def test_a_setting_that_is_no_integer_is_named_before_the_start(tmp_path, name, value):
    environment = os.environ | {"OFA_VENV": sys.prefix, name: value, "DRY_RUN": "1"}
    done = subprocess.run(
        [*TRAIN, "a.tsv", "--cpu"], capture_output=True, text=True, env=environment
    )
    least = 0 if name in ("NODE_RANK", "NPROC") else 1
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {name}: expected an integer of at least {least}, found '{value}'\n",
    )


@pytest.mark.parametrize("flags", [["--batch-size"], ["--batch-size=0"], ["--batch-size", "x"]])
def test_a_batch_size_that_is_no_integer_is_named_before_the_start(flags):
    environment = os.environ | {"OFA_VENV": sys.prefix, "DRY_RUN": "1"}
    done = subprocess.run(
        [*TRAIN, "a.tsv", "--cpu", *flags], capture_output=True, text=True, env=environment
    )
    expected = "expected one argument" if flags == ["--batch-size"] else "expected an integer of at"
    assert done.returncode == 2
    assert f"ofa train: error: argument --batch-size: {expected}" in done.stderr


def test_a_command_that_fails_in_silence_is_named_once(tmp_path):
    """Inside of functions, pipes and command substitutions as well; a script that says why it
    ends adds nothing."""
    quiet = {
        "false || true; [ -n '' ] && true; if false; then :; fi": 0,
        "echo reason >&2; exit 3": 3,
    }
    silent = (
        "false",
        "x=$(false)",
        "broken() { x=$(false); }; broken",
        "true | false | true",
        "x=$(true | $(echo false))",
    )
    for commands in (*quiet, *silent):
        script = program(tmp_path / "script.sh", f". {ROOT}/run_scripts/errors.sh\n{commands}")
        done = subprocess.run(["bash", script], capture_output=True, text=True)
        lines = done.stderr.replace("reason\n", "").splitlines()
        if commands in quiet:
            assert done.returncode == quiet[commands] and not lines, commands
        else:
            assert (
                done.returncode == 1
                and len(lines) == 1
                and lines[0].startswith("script.sh:3: error: ended with status 1")
            ), commands


def test_every_script_that_can_fail_in_silence_names_what_failed():
    """Experiments hold settings and one exec; all others run commands."""
    scripts = [*(ROOT / "run_scripts").glob("*.sh"), *(ROOT / "run_scripts").glob("*/*.s*")]
    executable = [path for path in scripts if path.read_text().startswith("#!")]
    for path in executable:
        text = path.read_text()
        begins = (
            # a copy of the script, as SLURM makes one, may lie where no errors.sh is
            r'^(?:\[ ! -f "\S+" \] \|\| )?\. "(\$\w+(/run_scripts|/\.\.)?/errors\.sh"'
            r'|\$\(dirname "\$\{BASH_SOURCE:-\$0\}"\)/(\.\./)?recipe\.sh" \|\| exit)$'
        )
        assert re.search(begins, text, re.M), path
    assert "/errors.sh" in (ROOT / "run_scripts/recipe.sh").read_text()
    for path in EXPERIMENTS:
        text = re.sub(
            r'\$\(dirname "\$(\{BASH_SOURCE:-\$0\}|checkpoint)"\)|\$\(\([^)]*\)\)',
            "",
            path.read_text(),
        )
        assert (
            "$(" not in text
            and "<(" not in text
            and not re.search(r"^[^#]*\w \| \w+ [^)]*$", text, re.M)
        ), path


def test_a_missing_pretrained_checkpoint_stops_before_training(tmp_path):
    script = ROOT / "run_scripts/caption/train_stage1.sh"
    environment = os.environ | {
        "OFA_VENV": sys.prefix,
        "RESTORE": str(tmp_path / "none.pt"),
        "SAVE_DIR": str(tmp_path / "run"),
    }
    environment.pop("DRY_RUN", None)
    result = subprocess.run(["bash", script], capture_output=True, text=True, env=environment)
    assert (
        result.returncode == 2
        and "found no file" in result.stderr
        and not (tmp_path / "run").exists()
    )


@pytest.mark.parametrize("script, size", sizes_that_differ(EVALUATION))
def test_our_command_parses_every_evaluation_script(script, size):
    from ofa.cli.main import build_parser

    words = dry_run(script, SIZE=size)
    namespace = build_parser().parse_args(words[words.index("evaluate") :])
    assert namespace.device == "auto" and namespace.task == {"vqa": "vqa_gen", "glue": "cola"}.get(
        script.parent.name, script.parent.name
    )
    if script.parent.name == "caption":
        assert namespace.beam == (10 if size == "huge" else 5)


def test_chinese_captions_are_a_setting_of_the_caption_scripts(parse_training):
    captions = ROOT / "run_scripts/caption"
    for name, columns in (("train_stage1", "0,4,2"), ("train_stage2", "1,4,2")):
        args = parse_training(
            after(
                dry_run(captions / f"{name}.sh", DATASET="muge", SIZE="base"), "fairseq_cli.train"
            )
        )
        assert (
            args.data.endswith("dataset/muge_data/caption_val.tsv")
            and args.bpe_dir.endswith("bpe/bert_cn")
            and args.selected_cols == columns
        )
        assert json.loads(args.eval_args) == {
            "beam": 5,
            "max_len_b": 128,
            "no_repeat_ngram_size": 3,
        }
        assert args.finetune_from_model.endswith(
            {
                "train_stage1": "ofa_cn_base.pt",
                "train_stage2": "runs/muge_stage1_base/checkpoint_best.pt",
            }[name]
        )
    words = dry_run(captions / "evaluate.sh", DATASET="muge")
    assert {"--beam=8", "--max-len-b=128", "--no-repeat-ngram-size=3"} <= set(words)  # as upstream
    assert any(word.endswith("results/muge_large") for word in words)
    failed = subprocess.run(
        ["bash", captions / "evaluate.sh"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "DATASET": "flickr"},
    )
    assert (
        failed.returncode == 2 and "DATASET expects coco or muge; found 'flickr'" in failed.stderr
    )
