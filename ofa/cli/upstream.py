"""``ofa upstream``: the programs that upstream's run scripts call, in a folder with these scripts.

Each file that it writes is a few lines that call ``program`` with its own place: the program of
this name, below, translates the command line of upstream's to what this project has.
"""

import argparse
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NoReturn, TypeVar

from ofa.cli.main import main, run_command
from ofa.errors import UserError
from ofa.inference.options import OverwriteOptions
from ofa.io.atomic import replacing
from ofa.io.flags import Parser, action, add_flags, option, read_options
from ofa.prepare.annotations import list_of, read_record
from ofa.task.results import check_folder, read_predictions, write_json
from ofa.trainer.launch import count_gpus
from ofa.trainer.processes import become

Words = list[str]
FILE = '''#!/usr/bin/env python3
"""Upstream's {path}, by ofa. Written by: ofa upstream."""
import sys

del sys.path[0]  # the folder of this file: upstream has data, models, utils, ... there
from ofa.cli.upstream import program

program({path!r}, __file__)
'''
MODULE = '''"""Upstream's --user-dir, by ofa. Written by: ofa upstream."""
import ofa

ofa.register_fairseq_plugin()
'''
VOCABULARIES = {"gpt2": "utils/BPE", "bert_cn": "utils/BERT_CN_dict"}
INCEPTION = "checkpoints/pt_inception-2015-12-05-6726825d.pth"
HALF_PRECISION = {"--fp16", "--memory-efficient-fp16"}
LOCAL_RANK = re.compile(r"--local[-_]rank\b")
SINGLE = re.compile(r"\{([^{},]+),\}")  # what sh leaves of {10,}
SEVERAL = re.compile(r"--\w[\w-]*=\{[\w.-]+,[\w.,-]*\w\}")  # and of {5,7,10}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class UpstreamOptions(OverwriteOptions):
    out: str = option(help="folder that has, or will have, upstream's run_scripts/")


@action
def upstream(args: UpstreamOptions) -> None:
    """Let upstream's own run scripts work: write the programs that they call.

    That is train.py, evaluate.py, ofa_module/ and what run_scripts/ calls by Python. Scripts,
    dataset/ and checkpoints/ are yours; each script runs unchanged from its own folder.

    example: ofa upstream --out OFA && cd OFA/run_scripts/caption && sh train_caption_stage1_base.sh
    """
    folder = Path(args.out)
    check_folder(folder)
    files = {path: FILE.format(path=path) for path in PROGRAMS} | {"ofa_module/__init__.py": MODULE}
    found = [path for path, text in files.items() if differs(folder / path, text)]
    if found and not args.overwrite:
        raise UserError(
            f"{folder}: expected none of the files to write, found {', '.join(found)}; choose"
            " another --out, or replace them by --overwrite"
        )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder / path) as file:
            file.write(text)
    print(f"{folder}: wrote {', '.join(files)}")
    if not (folder / VOCABULARIES["gpt2"]).is_dir():
        for name, path in VOCABULARIES.items():
            print(
                f"the scripts look for a vocabulary: ofa vocab fetch {name} --out {folder / path}"
            )


@dataclass(frozen=True, kw_only=True)
class CaptionFiles:
    """coco_eval.py"""

    results: str = option(help="test_predict.json", positional=True)
    labels: str = option(help="captions in COCO's format", positional=True)
    out: str | None = option(None, "file for the scores", positional=True)


@dataclass(frozen=True, kw_only=True)
class SummaryFile:
    """eval_rouge.py"""

    results: str = option(help="test_predict.json", positional=True)


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """fid_score.py, inception_score.py"""

    IGNORED = ("--gpu", "--batch-size")

    path1: str = option(help="folder of generated images")
    path2: str | None = option(None, "folder of real images, or their statistics")


def two_or_four(text: str) -> str:
    """Columns of generate_code.py. Raises: ArgumentTypeError."""
    if len(text.split(",")) not in (2, 4):
        raise argparse.ArgumentTypeError(f"expected two or four columns, found {text!r}")
    return text


@dataclass(frozen=True, kw_only=True)
class CodeFiles:
    """generate_code.py"""

    IGNORED = ("--vq_model", "--vqgan_model_path", "--batch_size")

    file: str = option(help="TSV with images")
    outputs: str = option(help="TSV to write")
    selected_cols: str = option(
        help="columns id, image; or id, image-id, image, text",
        flag="--selected_cols",
        parse=two_or_four,
    )
    code_image_size: int = option(256, "side of the encoded square", flag="--code_image_size")
    vqgan_config_path: str = option(
        help="model.yaml, last.ckpt beside it", flag="--vqgan_config_path"
    )


def differs(path: Path, text: str) -> bool:
    """Whether a file of another content is there."""
    return os.path.lexists(path) and (
        not path.is_file() or path.read_bytes().decode("utf-8", "replace") != text
    )


def program(path: str, file: str) -> None:
    """Run one of upstream's programs with the arguments of this process, and end.

    Args: path: in upstream's checkout. file: where it lies, from which its folder follows.
    """
    root = Path(file).resolve().parents[path.count("/")]
    sys.exit(main(sys.argv[1:], partial(PROGRAMS[path], root)))


# --- the programs: folder of the checkout, arguments of upstream's -> exit status ----------------


def train(root: Path, words: Words) -> NoReturn:
    """One process of ``python3 -m torch.distributed.launch ... train.py``: fairseq-train.

    Raises: UserError if there are more processes than GPUs.
    """
    gpus = count_gpus(quick=True)
    words = settled(words, gpus)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if 0 < gpus < processes:
        raise UserError(
            f"--nproc_per_node={processes}: expected a GPU for each process, found {gpus}; start"
            f" {gpus}, and multiply --update-freq by {processes / gpus:g} to keep the rows per"
            " update"
        )
    if os.environ.get("WORLD_SIZE") == "1":  # fairseq would make a group of one
        del os.environ["WORLD_SIZE"], os.environ["RANK"]
    become([sys.executable, "-m", "fairseq_cli.train", *words, *(["--cpu"] * (not gpus))], {})


def evaluate(root: Path, words: Words) -> int:
    """One process of ``python3 -m torch.distributed.launch ... evaluate.py``: ofa evaluate."""
    return run_command(["evaluate", *settled(words, count_gpus(quick=True))])


def settled(words: Words, gpus: int) -> Words:
    """Arguments without what shells and launchers of today make of upstream's scripts.

    ``--local-rank=0`` stands in the environment as well, ``{10,}`` is what sh leaves of a list of
    bash, a space what a backslash before it leaves. A CPU computes in fp32. Args: gpus: how many
    there are.
    Raises: UserError for a list of several values.
    """
    kept = []
    for word in words:
        if SEVERAL.fullmatch(word):
            raise UserError(
                f"{word}: expected one value, found a list, which sh does not expand; run the"
                " script by bash"
            )
        if word.strip() and not LOCAL_RANK.match(word):
            kept.append(SINGLE.sub(r"\1", word))
    return kept if gpus else [word for word in kept if word not in HALF_PRECISION]


def coco_eval(root: Path, words: Words) -> int:
    """The scores of captions against a file in COCO's format, printed or written."""
    from ofa.metrics.caption_scores import caption_scores

    given, references = parsed(CaptionFiles, words), defaultdict(list)
    record = read_record(given.labels, "annotations")
    for one in list_of(given.labels, record["annotations"], "annotation", ("image_id", "caption")):
        references[str(one["image_id"])].append(str(one["caption"]))
    rows = entries(given.results, "image_id", "caption")
    for row in rows:
        if row["image_id"] not in references:
            raise UserError(
                f"{given.results}: expected images of {given.labels}, found {row['image_id']}; do"
                " the two files belong together?"
            )
    captions = [row["caption"] for row in rows]
    scores = caption_scores(captions, [references[row["image_id"]] for row in rows]).overall
    if given.out:
        write_json(given.out, scores, indent=4)
    else:
        print(scores)
    return 0


def eval_rouge(root: Path, words: Words) -> int:
    """Mean ROUGE of summaries as they are written."""
    from ofa.metrics.rouge import NAMES, rouge

    rows = entries(parsed(SummaryFile, words).results, "hyp", "ref")
    found = [rouge(row["hyp"], row["ref"]) for row in rows]
    for name in NAMES:
        print(f"{name.replace('r', 'R', 1)}:  {fmean(scores[name] for scores in found)}")
    return 0


def image_scores(root: Path, words: Words) -> int:
    """Inception score, and FID where there are statistics or images to compare with."""
    given = parsed(ImageFolders, words)
    real = [] if given.path2 is None else ["--real-images", given.path2]
    weights = ["--inception-model-path", str(root / INCEPTION)]
    return run_command(["image-scores", given.path1, *real, *weights])


def generate_code(root: Path, words: Words) -> int:
    """Image codes: of columns id, image for pretraining; of id, image-id, image, text for text to
    image."""
    given = parsed(CodeFiles, words)
    id_column, *others = given.selected_cols.split(",")
    call = ["--images", given.file, "--tokenizer", str(Path(given.vqgan_config_path).parent)]
    call += ["--out", given.outputs, "--id-column", id_column, "--image-column"]
    if len(others) == 1:  # pretraining takes the codes of the middle, whatever size is asked for
        call += [*others, "--for", "pretraining"]
    else:
        _, image_column, text_column = others
        call += [image_column, "--for", "generation", "--text-column", text_column]
        call += ["--code-image-size", str(given.code_image_size)]
    return run_command(["tokenizer", "encode", *call])


def parsed(options: type[T], words: Words) -> T:
    """The options of one of the small programs."""
    parser = Parser(prog=Path(sys.argv[0]).name)
    add_flags(parser, options)
    return read_options(options, parser.parse_args(words))


def entries(path: str, *keys: str) -> list[dict[str, str]]:
    """Entries of a result file that have these keys. Raises: UserError."""
    rows = list_of(path, read_predictions(path), "prediction", keys)
    found = [{key: str(row[key]) for key in keys} for row in rows]
    if not found:
        raise UserError(f"{path}: expected predictions, found none; is it a result file?")
    return found


PROGRAMS: dict[str, Callable[[Path, Words], int]] = {
    "train.py": train,
    "evaluate.py": evaluate,
    "run_scripts/caption/coco_eval.py": coco_eval,
    "run_scripts/gigaword/eval_rouge.py": eval_rouge,
    "run_scripts/image_gen/inception_score.py": image_scores,
    "run_scripts/image_gen/fid_score.py": image_scores,
    "run_scripts/image_gen/generate_code.py": generate_code,
}
