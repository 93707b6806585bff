"""The scripts of text to image: upstream's numbers, and one message for what they do not know."""

import json
import os
import subprocess
import sys

import pytest
from dry_runs import ROOT, after, dry_run

STAGE1, STAGE2, EVALUATE = (
    ROOT / f"run_scripts/image_gen/{name}.sh"
    for name in ("train_stage1", "train_stage2", "evaluate")
)
DRAW = {
    "min_len": 1024,
    "max_len_a": 0,
    "max_len_b": 1024,
    "sampling_topk": 256,
    "temperature": 1.0,
}


def test_stage_1_has_upstreams_numbers(parse_training):
    args = parse_training(after(dry_run(STAGE1, NPROC="32"), "fairseq_cli.train"))
    assert (args.lr, args.max_update, args.warmup_updates, args.label_smoothing) == (
        [1e-3],
        40000,
        2000,
        0.0,
    )
    assert (
        args.dropout,
        args.encoder_drop_path_rate,
        args.decoder_drop_path_rate,
        args.fp16_scale_window,
    ) == (0.1, 0.1, 0.1, 256)
    assert (args.batch_size, args.update_freq, int(args.batch_size_valid), args.selected_cols) == (
        4,
        [4],
        1,
        "0,2,1",
    )
    assert (
        args.code_image_size,
        args.max_src_length,
        args.max_tgt_length,
        args.constraint_range,
    ) == (256, 64, 1024, "50265,58457")
    assert (args.best_checkpoint_metric, args.save_interval, args.validate_interval) == (
        "score",
        3,
        3,
    )
    assert json.loads(args.eval_args) == {"beam": 24, **DRAW}
    assert args.image_tokenizer.endswith("checkpoints/vqgan") and args.clip_model_path.endswith(
        "clip/ViT-B-16.pt"
    )


def test_stage_2_has_upstreams_numbers(parse_training):
    args = parse_training(after(dry_run(STAGE2, NPROC="32"), "fairseq_cli.train"))
    assert (args.criterion, args.scst, args.lr, args.max_update, args.warmup_updates) == (
        "clip_scst_reward_criterion",
        True,
        [1e-6],
        5000,
        0,
    )
    assert (
        args.dropout,
        args.encoder_drop_path_rate,
        args.decoder_drop_path_rate,
        args.freeze_resnet,
    ) == (0.0, 0.0, 0.0, True)
    assert (
        args.batch_size,
        args.update_freq,
        args.save_interval_updates,
        args.validate_interval_updates,
    ) == (1, [1], 200, 200)
    assert json.loads(args.scst_args) == {"beam": 5, **DRAW} and json.loads(args.eval_args) == {
        "beam": 24,
        **DRAW,
    }
    assert args.finetune_from_model.endswith("runs/image_gen_stage1_large/checkpoint_last.pt")


def test_evaluation_draws_as_in_upstream():
    words = dry_run(EVALUATE, INCEPTION="/i.pth", REAL="/gt_stat.npz")
    assert {
        "--beam=24",
        "--min-len=1024",
        "--max-len-a=0",
        "--max-len-b=1024",
        "--sampling-topk=256",
        "--seed=42",
        "--batch-size=1",
        "--code-image-size=256",
        "--constraint-range=50265,58457",
        "--inception-model-path=/i.pth",
        "--real-images=/gt_stat.npz",
    } <= set(words)
    assert any(word.endswith("coco_vqgan_full_test.tsv") for word in words)


def test_small_images_and_other_scorers_are_settings(parse_training):
    words = dry_run(STAGE2, PIXELS="64", RANGE="", SCORER="ofa.some:Scorer", TOKENIZER="/t.pt")
    args = parse_training(after(words, "fairseq_cli.train"))
    assert (
        args.code_image_size,
        json.loads(args.scst_args)["max_len_b"],
        args.constraint_range,
    ) == (64, 64, None)
    assert (args.image_text_scorer, args.clip_model_path, args.image_tokenizer) == (
        "ofa.some:Scorer",
        None,
        "/t.pt",
    )
    args = parse_training(after(dry_run(STAGE1, CLIP="none"), "fairseq_cli.train"))
    assert (args.best_checkpoint_metric, args.clip_model_path) == ("loss", None)


@pytest.mark.parametrize(
    ("script", "setting", "value"),
    [(STAGE1, "SIZE", "giant"), (STAGE2, "SIZE", "giant"), (EVALUATE, "SPLIT", "tset")],
)
def test_an_unknown_size_or_split_is_one_message(script, setting, value):
    environment = os.environ | {"DRY_RUN": "1", "OFA_VENV": sys.prefix, setting: value}
    done = subprocess.run(["bash", script], capture_output=True, text=True, env=environment)
    assert (
        done.returncode == 2
        and len(done.stderr.splitlines()) == 1
        and f"found '{value}'" in done.stderr
    )


def test_flags_of_upstreams_command_lines_are_known(parse_training):
    words = after(dry_run(STAGE1), "fairseq_cli.train")
    upstream = [
        "--vqgan-model-path=vqgan/last.ckpt",
        "--vqgan-config-path=vqgan/model.yaml",
        "--clip-model-path=clip/ViT-B-16.pt",
        "--sampling-times=2",
        "--eval-clip-method=ii_sim",
        "--gen-images-path=images",
    ]
    args = parse_training([*words, *upstream])
    assert (args.vqgan_model_path, args.vqgan_config_path, args.sampling_times) == (
        "vqgan/last.ckpt",
        "vqgan/model.yaml",
        2,
    )
    assert (args.eval_clip_method, args.gen_images_path) == ("ii_sim", "images")
