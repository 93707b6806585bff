"""Parameter-efficient tuning on the command line: upstream's scripts' flags, and TUNING of our
own scripts."""

import subprocess

import pytest
from dry_runs import ROOT, after, dry_run

# What upstream's scripts of prompt tuning, adapters and BitFit give to fairseq, written out.
UPSTREAM = (
    """
    refcoco_train.tsv,refcoco_val.tsv --selected-cols=0,4,2,3 --bpe-dir=../../utils/BPE
    --reset-optimizer --reset-dataloader --reset-meters --save-dir=refcoco_checkpoints
    --task=refcoco --arch=ofa_large --restore-file=../../checkpoints/ofa_large.pt
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1 --batch-size=16
    --update-freq=8 --encoder-normalize-before --decoder-normalize-before
    --share-decoder-input-output-embed --share-all-embeddings --layernorm-embedding
    --patch-layernorm-embedding --code-layernorm-embedding --resnet-drop-path-rate=0.0
    --encoder-drop-path-rate=0.2 --decoder-drop-path-rate=0.2 --dropout=0.1 --attention-dropout=0.0
    --weight-decay=0.01 --optimizer=adam --adam-betas=(0.9,0.999) --adam-eps=1e-08 --clip-norm=1.0
    --lr-scheduler=polynomial_decay --lr=0.03 --max-epoch=100 --warmup-ratio=0.06
    --log-format=simple --log-interval=10 --fixed-validation-seed=7 --no-epoch-checkpoints
    --keep-best-checkpoints=1 --save-interval=1 --validate-interval=1 --save-interval-updates=500
    --validate-interval-updates=500 --eval-acc
    --eval-args={"beam":5,"min_len":4,"max_len_a":0,"max_len_b":4} --best-checkpoint-metric=score
    --maximize-best-checkpoint-metric --max-src-length=80 --max-tgt-length=20
    --find-unused-parameters --add-type-embedding --scale-attn --scale-fc --scale-heads
    --disable-entangle --num-bins=1000 --patch-image-size=480 --fp16 --fp16-scale-window=512
    --num-workers=0
""".split()
    + [f"--user-dir={ROOT / 'ofa'}"]
)
PREFIX = """
    --encoder-prompt --decoder-prompt --encoder-prompt-type=prefix --decoder-prompt-type=prefix
    --encoder-prompt-length=100 --decoder-prompt-length=100 --encoder-prompt-projection
    --decoder-prompt-projection --encoder-prompt-dim=2048 --decoder-prompt-dim=2048
""".split()
SCRIPTS = {
    "refcoco": (ROOT / "run_scripts/refcoco/train.sh", 100, 0),
    "snli_ve": (ROOT / "run_scripts/snli_ve/train.sh", 100, 0),
    "caption": (ROOT / "run_scripts/caption/train_stage1.sh", 100, 0),
    "vqa_gen": (ROOT / "run_scripts/vqa/train.sh", 0, 40000),
}
METHODS = {  # upstream learning rate, and a flag of the method
    "prefix": (0.03, ("encoder_prompt_length", 100)),
    "adapter": (1e-4, ("adapter_dim", 100)),
    "bitfit": (1e-4, ("bitfit", True)),
    "lora": (1e-4, ("lora_rank", 16)),
}


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (PREFIX, "encoder_prompt_dim", 2048),
        (["--adapter", "--adapter-dim=100"], "adapter", True),
        (["--bitfit"], "bitfit", True),
    ],
)
def test_the_upstream_flags_of_light_tuning_are_known(flags, name, value, parse_training):
    args = parse_training([*UPSTREAM, *flags])
    assert (getattr(args, name), args.lr, args.max_epoch, args.update_freq) == (
        value,
        [0.03],
        100,
        [8],
    )


def test_lora_and_the_place_of_a_base_have_flags(parse_training):
    flags = [
        "--lora-rank=4",
        "--lora-alpha=8",
        "--lora-targets=q,fc2",
        "--lora-dropout=0.1",
        "--base=/models/ofa_large.pt",
    ]
    args = parse_training([*UPSTREAM, *flags])
    assert (args.lora_rank, args.lora_alpha, args.lora_targets, args.lora_dropout, args.base) == (
        4,
        8.0,
        "q,fc2",
        0.1,
        "/models/ofa_large.pt",
    )
    assert parse_training(UPSTREAM).base is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", SCRIPTS)
def test_every_task_is_tuned_with_upstreams_numbers(task, method, parse_training):
    script, epochs, updates = SCRIPTS[task]
    rate, (name, value) = METHODS[method]
    args = parse_training(after(dry_run(script, TUNING=method, NPROC="8"), "fairseq_cli.train"))
    assert (args.task, args.lr, getattr(args, name), args.patch_image_size) == (
        task,
        [rate],
        value,
        480,
    )
    assert (args.max_epoch or 0, args.max_update or 0, args.batch_size, args.update_freq) == (
        epochs,
        updates,
        16,
        [8],
    )
    assert (args.warmup_ratio or 0) == (0.06 if epochs else 0) and args.save_dir.endswith(
        f"_large_{method}"
    )


@pytest.mark.parametrize("task", SCRIPTS)
def test_an_unknown_method_is_one_message(task):
    environment = {"PATH": "/usr/bin:/bin", "DRY_RUN": "1", "TUNING": "some"}
    result = subprocess.run(
        ["bash", SCRIPTS[task][0]], capture_output=True, text=True, env=environment
    )
    assert (
        result.returncode == 2
        and result.stderr == "TUNING expects full, prefix, adapter, bitfit or lora; found 'some'\n"
    )
