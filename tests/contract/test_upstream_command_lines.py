"""Command lines of upstream's scripts of pretraining and text to image: every flag is known to
fairseq's parser with the plugin.

Written out in full, with upstream's paths, so that no script of this project stands between.
"""

from dry_runs import ROOT

COMMON = (
    """
    --bpe-dir=../../utils/BPE --reset-optimizer --reset-dataloader --reset-meters
    --encoder-normalize-before --decoder-normalize-before --share-decoder-input-output-embed
    --share-all-embeddings --layernorm-embedding --patch-layernorm-embedding
    --code-layernorm-embedding --add-type-embedding --scale-attn --scale-fc --scale-heads
    --disable-entangle --resnet-drop-path-rate=0.0 --attention-dropout=0.0 --num-bins=1000
    --optimizer=adam --adam-betas=(0.9,0.999) --adam-eps=1e-08 --weight-decay=0.01
    --lr-scheduler=polynomial_decay --log-format=simple --log-interval=10 --fixed-validation-seed=7
    --fp16 --num-workers=0
""".split()
    + [f"--user-dir={ROOT / 'ofa'}"]
)
PRETRAINING = """
    ../../dataset/pretrain_data/vision_language_examples.tsv --task=unify_task
    --restore-file=../../checkpoints/ofa_large.pt --selected-cols=0,1,2,3,4,5,6,7
    --text-data=text_examples.tsv --text-selected-cols=0,1 --image-data=image_examples.tsv
    --image-selected-cols=0,1,2 --detection-data=detection_examples.tsv
    --detection-selected-cols=0,1,2 --neg-sample-dir=../../dataset/pretrain_data/negative_sample
    --save-dir=checkpoints/ofa_large --criterion=adjust_label_smoothed_cross_entropy
    --label-smoothing=0.0 --batch-size=4 --update-freq=1 --clip-norm=5.0 --lr=1e-4 --max-epoch=50
    --warmup-ratio=0.01 --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 --dropout=0.1
    --patch-image-size=384 --max-image-size=512 --max-src-length=80 --max-tgt-length=30
    --sample-patch-num=196 --fp16-scale-window=128 --keep-last-epochs=15 --save-interval=1
    --save-interval-updates=6000 --disable-validation --ddp-backend=no_c10d
""".split()
DRAW = '"min_len":1024,"max_len_a":0,"max_len_b":1024,"sampling_topk":256,"temperature":1.0'
DRAWING = """
    coco_vqgan_train.tsv,coco_vqgan_dev.tsv --task=image_gen --arch=ofa_large --selected-cols=0,2,1
    --max-src-length=64 --max-tgt-length=1024 --code-image-size=256 --constraint-range=50265,58457
    --batch-size-valid=1 --clip-norm=1.0 --fp16-scale-window=256 --find-unused-parameters
    --best-checkpoint-metric=score --maximize-best-checkpoint-metric
    --clip-model-path=../../run_scripts/image_gen/clip/ViT-B-16.pt
    --vqgan-model-path=vqgan/last.ckpt --vqgan-config-path=vqgan/model.yaml
    --keep-best-checkpoints=1 --no-epoch-checkpoints
""".split()
STAGE_1 = """
    --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.0 --batch-size=4
    --update-freq=4 --lr=1e-3 --max-update=40000 --warmup-updates=2000 --total-num-update=40000
    --save-interval=3 --validate-interval=3 --dropout=0.1 --encoder-drop-path-rate=0.1
    --decoder-drop-path-rate=0.1 --restore-file=../../checkpoints/ofa_large.pt
""".split()
STAGE_2 = """
    --criterion=clip_scst_reward_criterion --scst --batch-size=1 --update-freq=1 --lr=1e-6
    --max-update=5000 --warmup-updates=0 --total-num-update=5000 --save-interval-updates=200
    --validate-interval-updates=200 --dropout=0.0 --freeze-resnet --encoder-drop-path-rate=0.0
    --decoder-drop-path-rate=0.0 --restore-file=checkpoints/40000_2000_1e-3/checkpoint_last.pt
""".split()
EVALUATION = """
    evaluate coco_vqgan_full_test.tsv --path=../../checkpoints/image_gen_large_best.pt
    --user-dir=../../ofa_module --task=image_gen --batch-size=1 --log-format=simple --log-interval=1
    --seed=42 --gen-subset=full_test --results-path=results --beam=24 --min-len=1024 --max-len-a=0
    --max-len-b=1024 --sampling-topk=256 --temperature=1.0 --code-image-size=256
    --constraint-range=50265,58457 --fp16 --num-workers=0 --selected-cols=0,2,1
""".split()


def test_pretraining_of_both_upstream_sizes(parse_training):
    for arch in ("ofa_large", "ofa_base"):
        args = parse_training([*PRETRAINING, *COMMON, f"--arch={arch}"])
        assert (args.arch, args.sample_patch_num, args.max_image_size, args.code_image_size) == (
            arch,
            196,
            512,
            128,
        )
        assert (args.mask_length, args.mask_ratio, args.poisson_lambda, args.replace_length) == (
            "span-poisson",
            0.3,
            3.0,
            1,
        )
        assert (
            args.patch_image_size,
            args.pretrain_seed,
            args.clip_norm,
            args.disable_validation,
        ) == (384, 7, 5.0, True)


def test_both_stages_of_text_to_image(parse_training):
    first = parse_training([*DRAWING, *COMMON, *STAGE_1, f'--eval-args={{"beam":24,{DRAW}}}'])
    second = parse_training(
        [
            *DRAWING,
            *COMMON,
            *STAGE_2,
            f'--eval-args={{"beam":24,{DRAW}}}',
            f'--scst-args={{"beam":5,{DRAW}}}',
        ]
    )
    assert (first.criterion, second.criterion) == (
        "adjust_label_smoothed_cross_entropy",
        "clip_scst_reward_criterion",
    )
    assert (first.scst, second.scst, second.freeze_resnet, first.eval_clip_method) == (
        False,
        True,
        True,
        "ti_sim",
    )
    assert {args.constraint_range for args in (first, second)} == {"50265,58457"}


def test_evaluation_of_text_to_image():
    from ofa.cli.main import build_parser

    overrides = (
        "{'bpe_dir': 'BPE', 'clip_model_path': 'clip/ViT-B-16.pt', 'gen_images_path': 'images',"
        " 'eval_cider': False}"
    )
    args = build_parser().parse_args([*EVALUATION, f"--model-overrides={overrides}"])
    assert (args.beam, args.min_len, args.sampling_topk, args.code_image_size, args.precision) == (
        24,
        1024,
        256,
        256,
        "fp16",
    )
    assert args.overrides["gen_images_path"] == "images"
