"""``ofa prepare`` for the language tasks: GLUE, summaries, and made-up sentences."""

from dataclasses import dataclass
from typing import Any

from ofa.cli.prepare_flags import OutOptions, SkipOptions, summary
from ofa.io.flags import command, option


def glue_tasks() -> tuple[str, ...]:
    from ofa.prepare.glue import SOURCES

    return tuple(SOURCES)


@dataclass(frozen=True, kw_only=True)
class GlueOptions(OutOptions, SkipOptions):
    """Folders of GLUE."""

    data: str = option(help="folder of the tasks' folders; with one --tasks also that task's own")
    tasks: tuple[str, ...] = option(
        (), "tasks to prepare, if not all that are there", choices=glue_tasks
    )


FILES = ("TEXTS", "SUMMARIES")
LINES = "texts and their summaries, one per line in both files"


@dataclass(frozen=True, kw_only=True)
class GigawordOptions(OutOptions, SkipOptions):
    """Texts and summaries."""

    data: str | None = option(None, "folder of such files, or of DatasetDict.save_to_disk")
    train: tuple[str, str] | None = option(None, LINES, metavar=FILES)
    dev: tuple[str, str] | None = option(None, LINES, metavar=FILES)
    test: tuple[str, str] | None = option(None, LINES, metavar=FILES)


@dataclass(frozen=True, kw_only=True)
class SentencesOptions(OutOptions):
    """Synthetic sentences."""

    train: int = option(3000, "training rows of each task", least=1)
    dev: int = option(200, "validation rows of each task", least=1)
    test: int = option(300, "test rows of each task", least=1)
    seed: int = option(1, "seed of all random choices")


def add_texts(add: Any) -> None:
    """Add the language tasks to ``ofa prepare``."""
    command(
        add("glue", help="GLUE: the original TSVs, or folders of Hugging Face datasets"),
        GlueOptions,
        prepare_glue,
        "example: ofa prepare glue --data glue_data --out dataset/glue_data. The folder holds "
        "CoLA, MNLI, MRPC, QNLI, QQP, RTE, SST-2 as they are downloaded, or cola, mnli, ... as "
        "DatasetDict.save_to_disk writes them.",
        "Writes cola_train.tsv, cola_dev.tsv, cola_test.tsv and so on (MNLI: mnli_dev_matched.tsv, "
        "mnli_dev_mismatched.tsv, ...) and a manifest per task. Labels are converted by name.",
    )
    command(
        add(
            "gigaword",
            help="texts and their summaries: Gigaword, two files of lines, or a Hugging Face "
            "dataset",
        ),
        GigawordOptions,
        prepare_gigaword,
        "example: ofa prepare gigaword --train train.article.txt train.title.txt --dev "
        "valid.article.filter.txt valid.title.filter.txt --test input.txt task1_ref0.txt --out "
        "dataset/gigaword_data",
        "Writes gigaword_train.tsv, gigaword_dev.tsv, gigaword_test.tsv (of the files that are "
        "given) and manifest.json.",
    )
    command(
        add(
            "synthetic-sentences",
            aliases=["text-world"],
            help="synthetic sentences for the language tasks, by a small grammar",
        ),
        SentencesOptions,
        prepare_synthetic_sentences,
        "example: ofa prepare synthetic-sentences --out dataset/synthetic_sentences",
        "Writes TASK_train.tsv, TASK_dev.tsv and TASK_test.tsv for cola, mnli, mrpc, qnli, qqp, "
        "rte, sst2 and gigaword, and texts.txt for ofa vocab build. No row of the other files "
        "occurs in training.",
    )


def prepare_glue(args: GlueOptions) -> int:
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


def prepare_gigaword(args: GigawordOptions) -> int:
    """Texts and summaries of the splits that are given."""
    from ofa.prepare.gigaword import SPLITS, find_summaries
    from ofa.prepare.text_files import prepare_texts

    inputs, files = find_summaries(
        args.data, {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    )
    summary(prepare_texts("gigaword", args.out, inputs, {}, files, args.skip_broken))
    return 0


def prepare_synthetic_sentences(args: SentencesOptions) -> int:
    """All tasks of the grammar."""
    from ofa.synthetic.sentences import write_world

    summary(
        write_world(
            args.out, {split: getattr(args, split) for split in ("train", "dev", "test")}, args.seed
        )
    )
    return 0
