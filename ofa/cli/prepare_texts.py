"""``ofa prepare`` for the language tasks: GLUE, summaries, and made-up sentences."""

import argparse

from ofa.cli.prepare_flags import count, summary


def add_texts(kinds) -> None:
    """Add the kinds to ``ofa prepare``."""
    _add_glue(kinds)
    _add_gigaword(kinds)
    _add_synthetic_sentences(kinds)


def _add_glue(kinds) -> None:
    from ofa.prepare.glue import SOURCES

    parser = kinds.add_parser(
        "glue",
        help="GLUE: the original TSVs, or folders of Hugging Face datasets",
        description=(
            "Writes cola_train.tsv, cola_dev.tsv, cola_test.tsv and so on (MNLI:"
            " mnli_dev_matched.tsv, mnli_dev_mismatched.tsv, ...) and a manifest per task. Labels"
            " are converted by name."
        ),
        epilog=(
            "example: ofa prepare glue --data glue_data --out dataset/glue_data. The folder holds"
            " CoLA, MNLI, MRPC, QNLI, QQP, RTE, SST-2 as they are downloaded, or cola, mnli, ... as"
            " DatasetDict.save_to_disk writes them."
        ),
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="folder of the tasks' folders; with one --tasks also that task's own",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        choices=tuple(SOURCES),
        metavar="TASK",
        help=f"some of {', '.join(SOURCES)} (default: those that are there)",
    )
    _add_common(parser)
    parser.set_defaults(run=prepare_glue)


def _add_gigaword(kinds) -> None:
    parser = kinds.add_parser(
        "gigaword",
        help=(
            "texts and their summaries: Gigaword's files, any two files of lines, or a Hugging Face"
            " dataset"
        ),
        description=(
            "Writes gigaword_train.tsv, gigaword_dev.tsv, gigaword_test.tsv (as far as they are"
            " given) and manifest.json."
        ),
        epilog=(
            "example: ofa prepare gigaword --train train.article.txt train.title.txt --dev"
            " valid.article.filter.txt valid.title.filter.txt --test input.txt task1_ref0.txt --out"
            " dataset/gigaword_data"
        ),
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help=(
            "folder with such files under their usual names, or of DatasetDict.save_to_disk "
            "(columns document, summary)"
        ),
    )
    for split in ("train", "dev", "test"):
        parser.add_argument(
            f"--{split}", nargs=2, metavar=("TEXTS", "SUMMARIES"), help="one per line in both files"
        )
    _add_common(parser)
    parser.set_defaults(run=prepare_gigaword)


def _add_synthetic_sentences(kinds) -> None:
    parser = kinds.add_parser(
        "synthetic-sentences",
        help="made-up sentences for the language tasks, by a small grammar",
        description=(
            "Writes TASK_train.tsv, TASK_dev.tsv and TASK_test.tsv for cola, mnli, mrpc, qnli, qqp,"
            " rte, sst2 and gigaword, and texts.txt for ofa vocab build. No row of the other files"
            " occurs in training."
        ),
        epilog="example: ofa prepare synthetic-sentences --out dataset/synthetic_sentences",
    )
    for split, number in (("train", 3000), ("dev", 200), ("test", 300)):
        parser.add_argument(
            f"--{split}",
            type=count,
            default=number,
            metavar="N",
            help="rows of each task (%(default)s)",
        )
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.set_defaults(run=prepare_synthetic_sentences)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave wrong rows out of training and validation instead of stopping",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")


def prepare_glue(args: argparse.Namespace) -> int:
    """Every task by itself: what is finished stays when another is added."""
    from ofa.prepare.glue import find_tasks
    from ofa.prepare.text_files import prepare_texts

    for task in find_tasks(args.data, args.tasks):
        summary(
            prepare_texts(
                "glue",
                args.out,
                task.inputs,
                {"task": task.name},
                task.files,
                args.skip_broken,
                f"manifest_{task.name}.json",
            )
        )
    return 0


def prepare_gigaword(args: argparse.Namespace) -> int:
    """Texts and summaries of the splits that are given."""
    from ofa.prepare.gigaword import SPLITS, find_summaries
    from ofa.prepare.text_files import prepare_texts

    inputs, files = find_summaries(
        args.data, {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    )
    summary(prepare_texts("gigaword", args.out, inputs, {}, files, args.skip_broken))
    return 0


def prepare_synthetic_sentences(args: argparse.Namespace) -> int:
    """All tasks of the grammar."""
    from ofa.synthetic.sentences import write_world

    summary(
        write_world(
            args.out, {split: getattr(args, split) for split in ("train", "dev", "test")}, args.seed
        )
    )
    return 0
