"""``ofa submit``: result files -> the file that a leaderboard takes."""

import argparse
import logging

from ofa.errors import UserError

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


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "submit",
        help="turn result files into a leaderboard upload",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(title="leaderboards", metavar="LEADERBOARD", required=True)
    coco = kinds.add_parser("coco", help="COCO captions: a zip with one file per split")
    for split, size in COCO_SIZES.items():
        coco.add_argument(
            f"--{split}", metavar="RESULTS", help=f"result file of the {size:,} images of {split}"
        )
        coco.add_argument(
            f"--{split}-images",
            metavar="JSON",
            help=(
                f"the data set's list of images (captions_{split}.json or"
                f" image_info_{split}.json): checks that each has one caption"
            ),
        )
    coco.add_argument(
        "--name", default="ofa", help="of the method, part of the file names (%(default)s)"
    )
    coco.add_argument("--out", required=True, metavar="FILE.zip")
    coco.set_defaults(run=run_coco)
    vqa = kinds.add_parser("vqa", help="VQA challenge: one JSON of answers")
    vqa.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="result file; several make up a split together",
    )
    vqa.add_argument(
        "--questions",
        metavar="JSON",
        help="the data set's questions of the split: checks that each has one answer",
    )
    vqa.add_argument("--out", required=True, metavar="FILE.json")
    vqa.set_defaults(run=run_vqa)
    muge = kinds.add_parser("muge", help="MUGE's Chinese captions: one JSON object per line")
    muge.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="result file; several make up a split together",
    )
    muge.add_argument(
        "--images",
        metavar="TSV",
        help="the data set's images of the split: checks that each has one caption",
    )
    muge.add_argument("--out", required=True, metavar="FILE.jsonl")
    muge.set_defaults(run=run_muge)
    add_glue(kinds)


def add_glue(kinds) -> None:
    from ofa.submit.glue import OTHERS, TEST_SETS

    glue = kinds.add_parser("glue", help="GLUE: a zip with one TSV per test set")
    for name, test_set in TEST_SETS.items():
        glue.add_argument(
            f"--{name}",
            metavar="RESULTS",
            help=f"result file of the {test_set.rows:,} test rows of {test_set.file[:-4]}",
        )
    glue.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="TSV",
        help=f"{', '.join(OTHERS)}: they go in as they are",
    )
    glue.add_argument("--out", required=True, metavar="FILE.zip")
    glue.set_defaults(run=run_glue)


def run_coco(args: argparse.Namespace) -> int:
    from ofa.submit.coco_vqa_muge import coco_upload, listed_ids

    results = {split: getattr(args, split) for split in COCO_SIZES if getattr(args, split)}
    lists = {
        split: getattr(args, f"{split}_images")
        for split in COCO_SIZES
        if getattr(args, f"{split}_images")
    }
    if not results:
        raise UserError(
            "expects --val2014 RESULTS, --test2014 RESULTS or both, found neither; give the result"
            " files"
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
                "%s has %d images, these are captions of %d; the server refuses an incomplete"
                " split",
                split,
                COCO_SIZES[split],
                count,
            )
    for split in COCO_SIZES.keys() - counts.keys():
        logger.warning("the server wants both splits; --%s is not given", split)
    print(f"upload: {args.out}")
    return 0


def run_vqa(args: argparse.Namespace) -> int:
    from ofa.submit.coco_vqa_muge import listed_ids, vqa_upload

    expected = listed_ids(args.questions, "questions", "question_id") if args.questions else None
    count = vqa_upload(args.results, args.out, expected)
    print(
        f"{count} answers" + ("" if expected is None else ", one for every question of the split")
    )
    print(f"upload: {args.out}")
    return 0


def run_muge(args: argparse.Namespace) -> int:
    from ofa.io.image_files import table_images
    from ofa.submit.coco_vqa_muge import muge_upload

    expected = {image_id for image_id, _ in table_images(args.images)} if args.images else None
    count = muge_upload(args.results, args.out, expected)
    print(f"{count} captions" + ("" if expected is None else ", one for every image of the split"))
    print(f"upload: {args.out}")
    return 0


def run_glue(args: argparse.Namespace) -> int:
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
                "%s: the test set has %d rows, these are predictions for %d; the site refuses an"
                " incomplete file",
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
            "the site wants a file for every task; not there: %s (--also takes those of its sample"
            " submission)",
            ", ".join(missing),
        )
    print(f"upload: {args.out}")
    return 0
