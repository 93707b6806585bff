"""``ofa submit``: result files -> the file that a leaderboard takes."""

import logging
from dataclasses import dataclass, make_dataclass
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


@dataclass(frozen=True, kw_only=True)
class VqaOptions(SplitOptions):
    """Answers of a split."""

    questions: str | None = option(
        None, "the data set's questions, to check that each has one answer"
    )
    out: str = option(help="file to write")


@dataclass(frozen=True, kw_only=True)
class MugeOptions(SplitOptions):
    """Captions of a split."""

    images: str | None = option(None, "the data set's images, to check that each has one caption")
    out: str = option(help="file to write")


def glue_options() -> type:
    """The test sets of GLUE as a dataclass."""
    from ofa.submit.glue import OTHERS, TEST_SETS

    results = [
        (
            name.replace("-", "_"),
            str | None,
            option(None, f"result file of the {one.rows:,} test rows of {one.file[:-4]}"),
        )
        for name, one in TEST_SETS.items()
    ]
    also = option((), f"{', '.join(OTHERS)}: they go in as they are")
    out = option(help="zip file to write")
    return make_dataclass(
        "GlueOptions", [*results, ("also", tuple[str, ...], also), ("out", str, out)], kw_only=True
    )


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
    from ofa.submit.coco_vqa_muge import coco_upload, listed_ids

    results = {split: getattr(args, split) for split in COCO_SIZES if getattr(args, split)}
    lists = {
        split: getattr(args, f"{split}_images")
        for split in COCO_SIZES
        if getattr(args, f"{split}_images")
    }
    if not results:
        raise UserError(
            "expects --val2014 RESULTS, --test2014 RESULTS or both, found neither; give the result "
            "files"
        )
    for split in lists.keys() - results.keys():
        raise UserError(
            f"--{split}-images: expects --{split} RESULTS beside it, found none; give both or"
            " neither"
        )
    counts = coco_upload(
        results,
        args.name,
        args.out,
        {split: listed_ids(path, "images", "id") for split, path in lists.items()},
    )
    for split, count in counts.items():
        print(f"{split}: {count} captions")
        if split not in lists and count != COCO_SIZES[split]:
            logger.warning(
                "%s has %d images, these are captions of %d; the server refuses an incomplete "
                "split",
                split,
                COCO_SIZES[split],
                count,
            )
    for split in COCO_SIZES.keys() - counts.keys():
        logger.warning("the server wants both splits; --%s is not given", split)
    print(f"upload: {args.out}")
    return 0


def run_vqa(args: VqaOptions) -> int:
    from ofa.submit.coco_vqa_muge import listed_ids, vqa_upload

    expected = listed_ids(args.questions, "questions", "question_id") if args.questions else None
    count = vqa_upload(args.results, args.out, expected)
    print(
        f"{count} answers" + ("" if expected is None else ", one for every question of the split")
    )
    print(f"upload: {args.out}")
    return 0


def run_muge(args: MugeOptions) -> int:
    from ofa.io.image_files import table_images
    from ofa.submit.coco_vqa_muge import muge_upload

    expected = {image_id for image_id, _ in table_images(args.images)} if args.images else None
    count = muge_upload(args.results, args.out, expected)
    print(f"{count} captions" + ("" if expected is None else ", one for every image of the split"))
    print(f"upload: {args.out}")
    return 0


def run_glue(args: Any) -> int:
    from ofa.submit.glue import OTHERS, TEST_SETS, glue_upload

    results = {
        name: getattr(args, name.replace("-", "_"))
        for name in TEST_SETS
        if getattr(args, name.replace("-", "_"))
    }
    if not results:
        raise UserError(
            "expects result files, such as --cola RESULTS, found none; known are"
            f" {', '.join(f'--{name}' for name in TEST_SETS)}"
        )
    counts = glue_upload(results, args.also, args.out)
    for name, count in counts.items():
        print(f"{name}: {count} predictions")
    for name in results:
        test_set = TEST_SETS[name]
        if counts[test_set.file] != test_set.rows:
            logger.warning(
                "%s: the test set has %d rows, these are predictions for %d; the site refuses an "
                "incomplete file",
                test_set.file,
                test_set.rows,
                counts[test_set.file],
            )
    missing = [
        name
        for name in [one.file for one in TEST_SETS.values()] + list(OTHERS[:2])
        if name not in counts
    ]
    if missing:
        logger.warning(
            "the site wants a file for every task; not there: %s (--also takes those of its sample "
            "submission)",
            ", ".join(missing),
        )
    print(f"upload: {args.out}")
    return 0
