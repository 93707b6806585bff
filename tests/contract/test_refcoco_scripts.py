"""The grounding scripts: upstream's numbers for every dataset and size, and one message for
what they do not know."""

import json
import subprocess

import pytest
from dry_runs import ROOT, after, dry_run

TRAIN, EVALUATE, ZERO_SHOT = (
    ROOT / f"run_scripts/refcoco/{name}.sh" for name in ("train", "evaluate", "evaluate_zeroshot")
)


@pytest.mark.parametrize(
    ("dataset", "size", "lr", "epochs", "drop_path"),
    [
        ("refcoco", "large", 3e-5, 10, 0.2),
        ("refcocoplus", "large", 3e-5, 10, 0.2),
        ("refcocog", "large", 3e-5, 10, 0.2),
        ("refcoco", "base", 5e-5, 10, 0.1),
        ("refcocoplus", "base", 5e-5, 10, 0.1),
        ("refcocog", "base", 5e-5, 12, 0.1),
    ],
)
def test_training_has_upstreams_numbers(dataset, size, lr, epochs, drop_path, parse_training):
    words = dry_run(TRAIN, DATASET=dataset, SIZE=size, NPROC="4")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.lr, args.max_epoch, args.warmup_ratio, args.label_smoothing) == (
        [lr],
        epochs,
        0.06,
        0.1,
    )
    assert (args.encoder_drop_path_rate, args.decoder_drop_path_rate, args.dropout) == (
        drop_path,
        drop_path,
        0.1,
    )
    assert (args.batch_size, args.update_freq, args.patch_image_size, args.max_image_size) == (
        4,
        [8],
        512,
        512,
    )
    assert (args.task, args.selected_cols, args.max_src_length, args.max_tgt_length) == (
        "refcoco",
        "0,4,2,3",
        80,
        20,
    )
    assert args.eval_acc and json.loads(args.eval_args) == {
        "beam": 5,
        "min_len": 4,
        "max_len_a": 0,
        "max_len_b": 4,
    }
    assert args.best_checkpoint_metric == "score" and args.maximize_best_checkpoint_metric
    assert (args.save_interval_updates, args.validate_interval_updates, args.criterion) == (
        500,
        500,
        "adjust_label_smoothed_cross_entropy",
    )
    assert not args.freeze_encoder_embedding and args.data.endswith(
        f"{dataset}_data/{dataset}_val.tsv"
    )


def test_chinese_files_have_their_own_columns_and_vocabulary():
    for words in (
        dry_run(TRAIN, DATASET="refcoco_cn"),
        dry_run(EVALUATE, DATASET="refcoco_cn"),
        dry_run(ZERO_SHOT, DATASET="refcoco_cn"),
    ):
        assert "--selected-cols=0,3,1,2" in words and any(
            word.endswith("bpe/bert_cn") for word in words
        )
    assert any(word.endswith("checkpoints/ofa_cn_large.pt") for word in words)


def test_the_encouraging_loss_is_a_setting(parse_training):
    args = parse_training(after(dry_run(TRAIN, LOSS="encouraging"), "fairseq_cli.train"))
    assert (args.criterion, args.log_end) == ("adjust_label_smoothed_encouraging_loss", 0.75)


@pytest.mark.parametrize(
    ("tuning", "flag", "value"),
    [
        ("prefix", "encoder_prompt", True),
        ("adapter", "adapter_dim", 100),
        ("bitfit", "bitfit", True),
    ],
)
def test_few_parameters_are_trained_as_in_upstream(tuning, flag, value, parse_training):
    args = parse_training(after(dry_run(TRAIN, TUNING=tuning, NPROC="8"), "fairseq_cli.train"))
    assert getattr(args, flag) == value
    assert (args.batch_size, args.update_freq, args.max_epoch, args.patch_image_size) == (
        16,
        [8],
        100,
        480,
    )


@pytest.mark.parametrize(
    ("dataset", "split"),
    [("refcoco", "testA"), ("refcocoplus", "testB"), ("refcocog", "test"), ("refcocog", "val")],
)
def test_evaluation_finds_the_split_and_searches_as_in_upstream(dataset, split):
    words = dry_run(EVALUATE, DATASET=dataset, SPLIT=split)
    assert (
        any(word.endswith(f"{dataset}_data/{dataset}_{split}.tsv") for word in words)
        and f"--gen-subset={split}" in words
    )
    assert {
        "--beam=5",
        "--min-len=4",
        "--max-len-a=0",
        "--max-len-b=4",
        "--no-repeat-ngram-size=3",
        "--batch-size=16",
    } <= set(words)


def test_zero_shot_takes_the_pretrained_checkpoint_at_its_size():
    words = dry_run(ZERO_SHOT, SIZE="base", SPLIT="testA")
    assert {"--zero-shot", "--patch-image-size=480"} <= set(words)
    assert any(
        word.startswith("--path=") and word.endswith("checkpoints/ofa_base.pt") for word in words
    )


@pytest.mark.parametrize(
    ("script", "setting", "value"),
    [
        (TRAIN, "DATASET", "flickr"),
        (TRAIN, "SIZE", "giant"),
        (TRAIN, "LOSS", "focal"),
        (TRAIN, "TUNING", "some"),
        (EVALUATE, "DATASET", "flickr"),
        (EVALUATE, "SPLIT", "testC"),
        (ZERO_SHOT, "SPLIT", "train"),
    ],
)
def test_an_unknown_dataset_size_or_split_is_one_message(script, setting, value):
    result = subprocess.run(
        ["bash", script],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "DRY_RUN": "1", setting: value},
    )
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert setting in result.stderr and f"found '{value}'" in result.stderr


def test_refcocog_has_no_test_a():
    result = subprocess.run(
        ["bash", EVALUATE],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "DRY_RUN": "1", "DATASET": "refcocog", "SPLIT": "testA"},
    )
    assert result.returncode == 2 and "val test" in result.stderr
