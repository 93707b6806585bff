"""``ofa submit``: result files -> the file that a leaderboard takes."""

import json
import logging
import re
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import Parser, command, option

logger = logging.getLogger(__name__)

COCO_SIZES = {"val2014": 40504, "test2014": 40775}  # images of the splits that the server scores
EXAMPLE = """\
examples:
  ofa submit coco --val2014 results/val_predict.json --test2014 results/test_predict.json \\
      --name ofa-large --out upload.zip
  ofa submit vqa results/test_predict.json \\
      --questions v2_OpenEnded_mscoco_test2015_questions.json --out answers.json
  ofa submit muge results/test_predict.json --images IC_test.tsv --out IC_test.jsonl
  ofa submit glue --cola results/cola/test_predict.json --rte results/rte/test_predict.json \\
      --also sample/STS-B.tsv --out glue.zip"""


CHECKED = "the data set's list of images of %s, to check that each has one caption"


@dataclass(frozen=True, kw_only=True)
class CocoOptions:
    """Captions of both splits."""

    val2014: str | None = option(None, "result file of the 40,504 images of val2014")
    val2014_images: str | None = option(None, CHECKED % "val2014")
    test2014: str | None = option(None, "result file of the 40,775 images of test2014")
    test2014_images: str | None = option(None, CHECKED % "test2014")
    name: str = option("ofa", "name of the method, part of the file names")
    out: str = option(help="zip file to write")


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """The predictions of a split."""

    results: tuple[str, ...] = option(
        help="result file; several make up a split together", positional=True
    )
    out: str = option(help="file to write")


@dataclass(frozen=True, kw_only=True)
class VqaOptions(SplitOptions):
    """Answers of a split."""

    questions: str | None = option(
        None, "the data set's questions, to check that each has one answer"
    )


@dataclass(frozen=True, kw_only=True)
class MugeOptions(SplitOptions):
    """Captions of a split."""

    images: str | None = option(None, "the data set's images, to check that each has one caption")


def glue_options() -> type:
    """The test sets of GLUE as a dataclass."""
    from ofa.submit.uploads import GLUE, OTHERS

    results = []
    for name, one in GLUE.items():
        help = f"result file of the {one.size:,} test rows of {one.file[:-4]}"
        results.append((name.replace("-", "_"), str | None, option(None, help)))
    also = option((), f"{', '.join(OTHERS)}: they go in as they are")
    out = option(help="zip file to write")
    more = [("also", tuple[str, ...], also), ("out", str, out)]
    return make_dataclass("GlueOptions", [*results, *more], kw_only=True)


def set_up(parser: Parser) -> None:
    """The leaderboards of ``ofa submit``."""
    parser.epilog = EXAMPLE
    add = parser.add_actions("LEADERBOARD")
    command(add("coco", help="COCO captions: a zip with one file per split"), CocoOptions, run_coco)
    command(add("vqa", help="VQA challenge: one JSON of answers"), VqaOptions, run_vqa)
    command(
        add("muge", help="MUGE's Chinese captions: one JSON object per line"), MugeOptions, run_muge
    )
    command(add("glue", help="GLUE: a zip with one TSV per test set"), glue_options(), run_glue)


def run_coco(args: CocoOptions) -> int:
    from ofa.submit.uploads import COCO, listed_ids, upload_entries, write_zip

    if not (args.val2014 or args.test2014):
        raise UserError(
            "expects --val2014 RESULTS, --test2014 RESULTS or both, found neither; give the result "
            "files"
        )
    if not re.fullmatch(r"[A-Za-z0-9.-]+", args.name):
        raise UserError(
            f"--name: expects letters, digits, dots and hyphens, found {args.name!r}; the server"
            " reads file names at '_'"
        )
    members = {}
    for split, size in COCO_SIZES.items():
        path, images = getattr(args, split), getattr(args, f"{split}_images")
        if images and not path:
            raise UserError(
                f"--{split}-images: expects --{split} RESULTS beside it, found none; give both or"
                " neither"
            )
        if not path:
            logger.warning("the server wants both splits; --%s is not given", split)
            continue
        entries = upload_entries([path], COCO, listed_ids(images, "images", "id"))
        members[f"captions_{split}_{args.name}_results.json"] = json.dumps(entries)
        tell(split, len(entries), "captions", len(entries) if images else size)
    write_zip(args.out, members)
    print(f"upload: {args.out}")
    return 0


def run_vqa(args: VqaOptions) -> int:
    from ofa.submit.uploads import VQA, listed_ids, upload_entries
    from ofa.task.results import write_json

    expected = listed_ids(args.questions, "questions", "question_id")
    entries = upload_entries(args.results, VQA, expected)
    write_json(args.out, entries)
    whole = "" if expected is None else ", one for every question of the split"
    print(f"{len(entries)} answers{whole}\nupload: {args.out}")
    return 0


def run_muge(args: MugeOptions) -> int:
    from ofa.io.atomic import replacing
    from ofa.io.image_files import table_images
    from ofa.submit.uploads import MUGE, upload_entries

    expected = {image_id for image_id, _ in table_images(args.images)} if args.images else None
    entries = upload_entries(args.results, MUGE, expected)
    with replacing(args.out) as file:
        for entry in entries:
            line = {"image_id": entry["image_id"], "text": entry["caption"]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    whole = "" if expected is None else ", one for every image of the split"
    print(f"{len(entries)} captions{whole}\nupload: {args.out}")
    return 0


def run_glue(args: Any) -> int:
    from ofa.submit.uploads import GLUE, OTHERS, glue_text, other_text, write_zip

    members = {}
    for name, form in GLUE.items():
        if path := getattr(args, name.replace("-", "_")):
            members[form.file] = glue_text(path, form)
            tell(form.file, members[form.file].count("\n") - 1, "predictions", form.size)
    if not members:
        raise UserError(
            "expects result files, such as --cola RESULTS, found none; known are"
            f" {', '.join(f'--{name}' for name in GLUE)}"
        )
    members |= {Path(path).name: other_text(path) for path in args.also}
    write_zip(args.out, members)
    wanted = [*(form.file for form in GLUE.values()), *OTHERS[:2]]
    missing = [name for name in wanted if name not in members]
    if missing:
        logger.warning(
            "the site wants a file for every task; not there: %s (--also takes those of its sample "
            "submission)",
            ", ".join(missing),
        )
    print(f"upload: {args.out}")
    return 0


def tell(name: str, count: int, things: str, size: int) -> None:
    """How many there are. Args: size: how many the server wants."""
    print(f"{name}: {count} {things}")
    if count != size:
        logger.warning(
            "%s: the test set has %d rows, these are %s for %d; the server refuses an incomplete"
            " file",
            *(name, size, things, count),
        )
