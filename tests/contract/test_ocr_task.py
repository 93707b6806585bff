"""Text recognition through fairseq's own doors, upstream's command line of its evaluation, and
the figures of our script."""

import json

import pytest
from answer_files import write_rows
from caption_files import make_image
from dry_runs import ROOT, after, dry_run
from fairseq_setup import configuration, task_with_data
from golden import load_json

from ofa.tokens.train_tokenizer import build_vocabulary

TEXTS = ("Open daily", "STOP", "open  DAILY", "")
EVALUATION = """
    evaluate ../../dataset/caption_data/ocr_scene_test.tsv
    --path=../../checkpoints/ofa_cn_ocr_large.pt --user-dir=../../ofa_module --task=ocr
    --batch-size=8 --log-format=simple --log-interval=10 --seed=7 --gen-subset=test
    --results-path=../../results/ocr --beam=5 --max-len-b=64 --no-repeat-ngram-size=0 --fp16
    --num-workers=0 --selected-cols=0,1,2
""".split()


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Configuration and task; the last row of the validation file has no text."""
    folder = tmp_path_factory.mktemp("ocr")
    build_vocabulary(
        ["what are the texts on the image? open daily stop"] * 3, 300, folder / "vocabulary"
    )
    rows = [(str(number), make_image("red"), text) for number, text in enumerate(TEXTS)]
    train, valid = (
        write_rows(folder / "train.tsv", rows[:3]),
        write_rows(folder / "valid.tsv", rows),
    )
    cfg = configuration(
        [
            f"{train},{valid}",
            "--task=ocr",
            "--arch=ofa_nano",
            f"--bpe-dir={folder / 'vocabulary'}",
            "--is-document",
            "--patch-image-size=64",
            "--criterion=adjust_label_smoothed_cross_entropy",
            '--eval-args={"beam":2,"max_len_b":4}',
            "--code-dict-size=16",
            "--num-bins=20",
            "--image-bucket-size=8",
            "--code-image-size=64",
            "--cpu",
        ]
    )
    return cfg, task_with_data(cfg)


def test_validation_counts_rows_that_have_a_text(ready):
    cfg, task = ready
    model, criterion = task.build_model(cfg.model).eval(), task.build_criterion(cfg.criterion)
    batch = task.datasets["valid"].collater([task.datasets["valid"][row] for row in range(4)])
    assert batch["net_input"]["patch_images"].shape == (4, 3, 64, 64) and [
        row.target.strip() for row in task.rows(batch)
    ] == ["open daily", "stop", "open daily", ""]
    log = task.valid_step(batch, model, criterion)[2]
    assert log["_acc_cnt"] == log["_dist_cnt"] == 3 and {"acc", "ned"} <= set(task.metric_names())


def test_summed_counts_become_the_recorded_figures(ready):
    from fairseq.logging import metrics

    cfg, task = ready
    recorded = load_json("metrics_reduce")["tasks"]["ocr"]
    with metrics.aggregate(new_root=True) as aggregator:
        task.reduce_metrics(recorded["logging_outputs"], task.build_criterion(cfg.criterion))
    smoothed = aggregator.get_smoothed_values()
    for name in ("loss", "nll_loss", "ppl", "acc", "ned", "bsz"):
        assert smoothed[name] == pytest.approx(recorded["reduced"][name], abs=1e-3)
    assert (smoothed["acc"], smoothed["ned"]) == (
        recorded["reduced"]["acc"],
        recorded["reduced"]["ned"],
    )


def test_the_upstream_evaluation_is_parsed():
    from ofa.cli.main import build_parser

    args = build_parser().parse_args(
        [
            *EVALUATION,
            "--is-document",
            "--model-overrides={'bpe_dir': 'BPE', 'resnet_model_path': None}",
        ]
    )
    assert (args.task, args.beam, args.max_len_b, args.no_repeat_ngram_size, args.is_document) == (
        "ocr",
        5,
        64,
        0,
        True,
    )
    assert build_parser().parse_args(EVALUATION).is_document is None, "as in training"


@pytest.mark.parametrize("size, lr, drop", [("base", 5e-5, 0.1), ("large", 3e-5, 0.2)])
def test_training_reads_chinese_with_the_lengths_of_upstreams_evaluation(
    size, lr, drop, parse_training
):
    words = dry_run(ROOT / "run_scripts/ocr/train.sh", "--is-document", SIZE=size, NPROC="4")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (args.task, args.lr, args.encoder_drop_path_rate, args.max_epoch, args.is_document) == (
        "ocr",
        [lr],
        drop,
        10,
        True,
    )
    assert (
        args.patch_image_size,
        args.max_tgt_length,
        args.selected_cols,
        args.label_smoothing,
    ) == (480, 64, "0,1,2", 0.1)
    assert json.loads(args.eval_args) == {"beam": 5, "max_len_b": 64, "no_repeat_ngram_size": 0}
    assert (
        args.batch_size * 4 * args.update_freq[0] == 128
        and args.best_checkpoint_metric == "acc"
        and args.maximize_best_checkpoint_metric
    )
    assert args.bpe_dir.endswith("bpe/bert_cn") and args.finetune_from_model.endswith(
        f"checkpoints/ofa_cn_{size}.pt"
    )
