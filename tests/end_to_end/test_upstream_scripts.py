"""Scripts as upstream's users have them run in a folder that ``ofa upstream`` has prepared: same
launcher, same flags, same relative paths; a smaller network and fewer rows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from answer_files import vqa_row, write_rows
from caption_files import caption, make_image, write_tsv
from grounding_files import write_rows as write_boxes
from pretraining_files import make_files, objects, pair, text
from programs import interpreter

from ofa.cli.main import main
from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel
from ofa.tokens.bpe import load_language
from ofa.trainer.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
SWITCHES = """
    encoder-normalize-before decoder-normalize-before share-decoder-input-output-embed
    share-all-embeddings layernorm-embedding patch-layernorm-embedding code-layernorm-embedding
    add-type-embedding scale-attn scale-fc scale-heads disable-entangle
""".split()
LAUNCH = "python3 -m torch.distributed.launch --nproc_per_node={processes} --master_port=$PORT"
TRAIN = f"""#!/usr/bin/env
user_dir=../../ofa_module
bpe_dir=../../utils/BPE
restore_file=../../checkpoints/ofa_base.pt
data_dir=../../dataset/{{data}}
save_dir=./checkpoints
mkdir -p ./logs $save_dir

for max_epoch in {{epochs}}; do
  save_path=${{{{save_dir}}}}/${{{{max_epoch}}}}
  CUDA_VISIBLE_DEVICES=0,1,2,3 {LAUNCH} ../../train.py \\
      {{files}} --selected-cols={{columns}} --bpe-dir=${{{{bpe_dir}}}} \\
      --user-dir=${{{{user_dir}}}} --restore-file=${{{{restore_file}}}} \\
      --reset-optimizer --reset-dataloader --reset-meters --save-dir=${{{{save_path}}}} \\
      --task={{task}} --arch=ofa_nano --criterion=adjust_label_smoothed_cross_entropy \\
      --label-smoothing=0.1 --batch-size=4 --update-freq=1 {" ".join(f"--{x}" for x in SWITCHES)} \\
      --resnet-drop-path-rate=0.0 --encoder-drop-path-rate=0.1 --decoder-drop-path-rate=0.1 \\
      --dropout=0.1 --attention-dropout=0.0 --weight-decay=0.01 --optimizer=adam \\
      --adam-betas="(0.9,0.999)" --adam-eps=1e-08 --clip-norm=1.0 \\
      --lr-scheduler=polynomial_decay --lr=1e-5 --max-epoch=${{{{max_epoch}}}} \\
      --warmup-ratio=0.06 --log-format=simple --log-interval=10 --fixed-validation-seed=7 \\
      --save-interval=1 --max-src-length=80 --max-tgt-length=20 --num-bins=1000 \\
      --patch-image-size=64 {{more}} --fp16 --fp16-scale-window=512 \\
      --num-workers=0 > ./logs/${{{{max_epoch}}}}.log 2>&1
done
"""
EVALUATE = f"""#!/usr/bin/env bash
bpe_dir=../../utils/BPE
data=../../dataset/caption_data/caption_test.tsv
selected_cols=1,4,2
CUDA_VISIBLE_DEVICES=4,5,6,7 {LAUNCH} ../../evaluate.py \\
    ${{{{data}}}} --path=../../checkpoints/ofa_base.pt --user-dir=../../ofa_module --task=caption \\
    --batch-size=16 --log-format=simple --log-interval=10 --seed=7 --gen-subset='test' \\
    --results-path=../../results/caption --beam=5 --max-len-b=16 --no-repeat-ngram-size=3 \\
    --fp16 --num-workers=0 \\
    --model-overrides="{{{{\\"data\\":\\"${{{{data}}}}\\",\\"bpe_dir\\":\\"${{{{bpe_dir}}}}\\",\\"eval_cider\\":False,\\"selected_cols\\":\\"${{{{selected_cols}}}}\\"}}}}"

python coco_eval.py ../../results/caption/test_predict.json \\
    ../../dataset/caption_data/test_caption_coco_format.json
"""
CAPTION = {
    "task": "caption",
    "processes": 2,
    "epochs": "1",
    "data": "caption_data",
    "files": "${data_dir}/caption_stage1_train.tsv,${data_dir}/caption_val.tsv",
    "columns": "0,4,2",
    "more": (
        "--drop-worst-ratio=0.2 --drop-worst-after=6000 --find-unused-parameters"
        " --freeze-encoder-embedding --freeze-decoder-embedding --no-epoch-checkpoints"
        " --keep-best-checkpoints=1 --validate-interval=1 --save-interval-updates=500"
        " --validate-interval-updates=500 --eval-cider --eval-cider-cached-tokens="
        "${data_dir}/cider_cached_tokens/coco-valid-words.p"
        """ --eval-args='{"beam":5,"max_len_b":16,"no_repeat_ngram_size":3}'"""
        " --best-checkpoint-metric=cider --maximize-best-checkpoint-metric"
    ),
}
GROUNDING = {
    "task": "refcoco",
    "processes": 1,
    "epochs": "{2,}",
    "data": "refcoco_data",
    "files": "${data_dir}/refcoco_train.tsv,${data_dir}/refcoco_val.tsv",
    "columns": "0,4,2,3",
    "more": (
        "--find-unused-parameters --no-epoch-checkpoints --keep-best-checkpoints=1 --eval-acc"
        """ --eval-args='{"beam":5,"min_len":4,"max_len_a":0,"max_len_b":4}'"""
        " --best-checkpoint-metric=score --maximize-best-checkpoint-metric --bitfit \\ "
    ),
}
QUESTIONS = {
    "task": "vqa_gen",
    "processes": "1 --nnodes=${WORKER_CNT} --node_rank=${RANK} --master_addr=${MASTER_ADDR}",
    "epochs": "1",
    "data": "vqa_data",
    "files": "${data_dir}/vqa_train.tsv,${data_dir}/vqa_val.tsv",
    "columns": "0,5,2,3,4",
    "more": (
        "--find-unused-parameters --freeze-encoder-embedding --freeze-decoder-embedding"
        " --ans2label-file=../../dataset/vqa_data/trainval_ans2label.pkl --valid-batch-size=20"
        " --prompt-type=prev_output --add-object --max-object-length=30 --uses-ema --store-ema"
        " --ema-fp32 --ema-decay=0.9999 --ema-start-update=0 --val-inference-type=allcand"
        " --best-checkpoint-metric=vqa_score --maximize-best-checkpoint-metric"
        " --keep-last-epochs=15"
    ),
}
PRETRAINING = {
    "task": "unify_task",
    "processes": 1,
    "epochs": "1",
    "data": "pretrain_data",
    "files": "${data_dir}/vision_language_examples.tsv",
    "columns": "0,1,2,3,4,5,6,7",
    "more": (
        "--text-data=${data_dir}/text_examples.tsv --image-data=${data_dir}/image_examples.tsv"
        " --detection-data=${data_dir}/detection_examples.tsv --text-selected-cols=0,1"
        " --image-selected-cols=0,1,2 --detection-selected-cols=0,1,2"
        " --neg-sample-dir=${data_dir}/negative_sample --keep-last-epochs=15"
        " --save-interval-updates=6000 --disable-validation --sample-patch-num=196"
        " --max-image-size=512"
    ),
}


def codes(number: int) -> list[str]:
    """A row for infilling: 256 pixels, and the 256 codes of their middle."""
    return [f"i{number}", make_image("red", (256, 256)), " ".join(map(str, range(256)))]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What a user of upstream has, and the programs of ``ofa upstream``."""
    root = tmp_path_factory.mktemp("OFA")
    assert main(["upstream", "--out", str(root)]) == 0
    made, dataset = make_files(root / "made"), root / "dataset"
    shutil.move(made.vocabulary, root / "utils/BPE")
    for name in ("caption_data", "refcoco_data", "vqa_data", "pretrain_data"):
        (dataset / name).mkdir(parents=True)
    captions = [caption(number) for number in range(8)]
    write_tsv(dataset / "caption_data/caption_stage1_train.tsv", captions)
    for name in ("stage2_train", "val", "test"):
        write_tsv(dataset / f"caption_data/caption_{name}.tsv", captions[:4], joined=True)
    labels = [{"image_id": f"img{n}", "caption": text} for n, text in enumerate(captions[:4])]
    (dataset / "caption_data/test_caption_coco_format.json").write_text(
        json.dumps({"annotations": labels})
    )
    write_boxes(dataset / "refcoco_data/refcoco_train.tsv", range(4))
    write_boxes(dataset / "refcoco_data/refcoco_val.tsv", range(4, 6))
    for name, numbers in (("train", range(4)), ("val", range(4, 6))):
        write_rows(dataset / f"vqa_data/vqa_{name}.tsv", [*map(vqa_row, numbers)])
    pretraining = {"vision_language": pair, "text": text, "image": codes, "detection": objects}
    for name, make in pretraining.items():
        rows = [*map(make, range(8 if make is pair else 2))]
        write_rows(dataset / f"pretrain_data/{name}_examples.tsv", rows)
    shutil.move(made.negatives, dataset / "pretrain_data/negative_sample")
    prepared = (
        f"answers build {dataset}/vqa_data/vqa_train.tsv"
        f" --out {dataset}/vqa_data/trainval_ans2label.pkl",
        f"cider-df build --no-eos --tsv {dataset}/caption_data/caption_stage2_train.tsv"
        f" --out {dataset}/caption_data/cider_cached_tokens/coco-valid-words.p",
    )
    for command in prepared:
        assert main(command.split()) == 0
    save_pretrained(root)
    for name in ("criterions", "data", "models", "tasks", "utils"):  # upstream's own code
        (root / name).mkdir(exist_ok=True)
        (root / name / "__init__.py").write_text("raise SystemExit('upstream was imported')")
    (root / "fairseq/fairseq").mkdir(parents=True)
    (root / "tools").mkdir()  # without Java, whose METEOR takes longer than all else
    for tool in ("sh", "mkdir"):
        (root / "tools" / tool).symlink_to(str(shutil.which(tool)))
    return root


def save_pretrained(root: Path) -> None:
    """``checkpoints/ofa_base.pt``, of the size of the scripts above."""
    _, vocabulary = load_language(root / "utils/BPE")
    model = dict.fromkeys((name.replace("-", "_") for name in SWITCHES), True)
    model |= {"arch": "ofa_nano", "_name": "ofa_nano"}
    network = OFAModel(ModelConfig.from_namespace(model), vocab_size=len(vocabulary))
    task = {"_name": "caption", "patch_image_size": 64}
    content = {"model": network.state_dict(), "cfg": {"model": model, "task": task}, "args": None}
    (root / "checkpoints").mkdir()
    torch.save(content, root / "checkpoints/ofa_base.pt")


def run(
    checkout: Path, name: str, script: str, python: str = sys.executable, **settings: str
) -> tuple[str, Path]:
    """Run a script by sh in its folder, as upstream's README does. Returns: what it printed and
    logged, and its folder."""
    folder = checkout / "run_scripts" / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "logs", ignore_errors=True)  # of another script
    (folder / "script.sh").write_text(script)
    known = {
        "PATH": f"{Path(python).parent}{os.pathsep}{checkout / 'tools'}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PORT": str(free_port()),
    }
    done = subprocess.run(
        ["sh", "script.sh"],
        cwd=folder,
        env=os.environ | known | settings,
        capture_output=True,
        text=True,
    )
    logs = "".join(path.read_text() for path in sorted(folder.glob("logs/*.log")))
    printed = done.stdout + done.stderr + logs
    assert done.returncode == 0 and "Traceback" not in printed, printed[-4000:]
    return printed, folder


def test_captions_are_learned_by_two_processes(checkout):
    printed, folder = run(checkout, "caption", TRAIN.format(**CAPTION), interpreter())
    best = torch.load(folder / "checkpoints/1/checkpoint_best.pt", weights_only=True)
    assert best["optimizer_history"][-1]["num_updates"] == 1 and "| cider" in printed


def test_captions_are_evaluated_and_scored(checkout):
    printed, _ = run(checkout, "caption", EVALUATE.format(processes=2))
    found = json.loads((checkout / "results/caption/test_predict.json").read_text())
    assert [row["image_id"] for row in found] == ["img0", "img1", "img2", "img3"]
    assert "'CIDEr':" in printed and "'BLEU-4':" in printed


def test_a_list_that_sh_does_not_expand_and_a_space_behind_a_backslash_do_no_harm(checkout):
    printed, folder = run(checkout, "refcoco", TRAIN.format(**GROUNDING), interpreter())
    last = torch.load(folder / "checkpoints/2/checkpoint_last.pt", weights_only=True)
    assert last["optimizer_history"][-1]["num_updates"] == 2 and "| score" in printed


def test_questions_are_learned_with_averages_by_the_settings_of_a_cluster(checkout):
    cluster = {"WORKER_CNT": "1", "RANK": "0", "MASTER_ADDR": "localhost", "GPUS_PER_NODE": "1"}
    printed, folder = run(checkout, "vqa", TRAIN.format(**QUESTIONS), interpreter(), **cluster)
    best = torch.load(folder / "checkpoints/1/checkpoint_best.pt", weights_only=True)
    assert best["extra_state"]["ema_fp32_params"] and "| vqa_score" in printed


def test_pretraining_reads_its_four_files(checkout):
    printed, folder = run(checkout, "pretraining", TRAIN.format(**PRETRAINING), interpreter())
    last = torch.load(folder / "checkpoints/1/checkpoint_last.pt", weights_only=True)
    assert last["optimizer_history"][-1]["num_updates"] == 2
    assert last["cfg"]["model"]["arch"] == "ofa_nano"
