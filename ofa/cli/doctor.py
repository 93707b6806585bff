"""``ofa doctor``: finds what would stop a training, or spoil it."""

import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.jobs import JobsOptions

LISTED = 20  # findings printed per rule


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(JobsOptions):
    paths: tuple[str, ...] = option(
        (),
        "TSV files or a folder of them, shards, vocabularies, negative samples, checkpoints",
        positional=True,
    )
    task: str | None = option(None, "task of the TSV files, if their names do not tell")
    selected_cols: str | None = option(None, "columns as given to the training, if not the task's")
    bpe_dir: str | None = option(None, "vocabulary folder to check, and for texts and checkpoints")
    ans2label_file: str | None = option(None, "label file that must have answers or class words")
    max_src_length: int | None = option(None, "words kept of a source, if not as in the recipes")
    max_tgt_length: int | None = option(None, "words kept of a target, if not as in the recipes")
    code_dict_size: int = option(8192, "image codes of the vocabulary")
    code_image_size: int | None = option(
        None, "side in pixels of images as codes, if not 256 (pretraining: 128)"
    )
    evaluation: bool = option(
        False, "rows may lack answers, labels and captions, as of a file *_test.tsv"
    )
    no_images: bool = option(False, "do not decode images: much faster")
    json: str | None = option(None, "report to write")
    fix: str | None = option(None, "repaired copy to write; what cannot be repaired is skipped")
    max_findings: int = option(LISTED, "findings printed per file and rule")
    rules: bool = option(False, "list the rules and what --fix does about each")


@action
def doctor(args: DoctorOptions) -> int:
    """Look over environment, vocabulary, checkpoint and data before a training does.

    Without paths: checks the environment. Prints one line per finding, FILE:ROW:COLUMN rule - found
    - fix (rows from 1, columns from 0 as in --selected-cols, * is the whole row). Exit status: 0
    all well, 1 faults; notes, such as texts that will be cut, are no faults.

    example: ofa doctor dataset/vqa_data/vqa_train.tsv --task vqa_gen --ans2label-file
    trainval_ans2label.pkl --bpe-dir bpe/gpt2 --fix vqa_train_fixed.tsv
    """
    from ofa.data.row_files import leaving_no_index
    from ofa.doctor.assets import files_of, kind_of
    from ofa.doctor.environment import FAULT, check_environment
    from ofa.doctor.rule import FATES, RULES
    from ofa.doctor.schemas import UNIFY, schema_of
    from ofa.task.results import write_json

    if args.rules:
        for rule in sorted(RULES.values()):
            print(f"{rule.name:<18} expects {rule.expects}; {FATES[rule.fate]}")
        return 0
    if args.task and args.task != UNIFY:
        schema_of("", args.task)  # a wrong name or line is told before a wrong file
    paths: dict[str, list[str]] = {}
    for path in itertools.chain.from_iterable(files_of(path) or [path] for path in args.paths):
        paths.setdefault(kind_of(path), []).append(path)
    rows = paths.get("rows", [])
    if args.fix and len(rows) != 1:
        raise UserError(f"--fix {args.fix}: expected one TSV to repair, found {len(rows)}")
    if args.fix and os.path.exists(args.fix) and os.path.samefile(args.fix, rows[0]):
        raise UserError(
            f"--fix {args.fix}: expected another file than the one to repair; choose a new name"
        )
    environment = [] if paths else check_environment()
    for check in environment:
        print(check.line())
    reports, repaired = [], {}
    with leaving_no_index(path for path in rows if schema_of(path, args.task) is None):
        for report in _reports(paths, args):
            _show(report, args.max_findings)
            reports.append(report)
        if args.fix:
            repaired["repaired"] = _repair(reports[-1], args.fix, args.jobs)
    faults = any(check.state == FAULT for check in environment) or any(r.faults for r in reports)
    if args.json:
        checks, files = list(map(asdict, environment)), list(map(_entry, reports))
        content = {"ok": not faults, "environment": checks, "files": files, **repaired}
        write_json(args.json, content, indent=1)
    return int(faults)


def _entry(report: Any) -> dict[str, Any]:
    """A report on a file, in the file of ``--json``."""
    return {
        **{name: getattr(report, name) for name in ("path", "task", "rows", "faults", "notes")},
        "by_rule": dict(sorted(report.counts.items())),
        "findings": list(map(asdict, report.findings)),
    }


def _reports(paths: dict[str, list[str]], args: DoctorOptions) -> Iterator[Any]:
    """Of vocabularies, checkpoints, negative samples and rows. Args: paths: by their kind."""
    from ofa.doctor.assets import check_checkpoint, check_negatives, check_vocabulary
    from ofa.doctor.scan import scan
    from ofa.doctor.schemas import settings_of

    given = [args.bpe_dir] if args.bpe_dir else []
    yield from map(check_vocabulary, dict.fromkeys([*paths.get("vocabulary", []), *given]))
    for path in paths.get("checkpoint", []):
        yield check_checkpoint(path, args.bpe_dir)
    for path in paths.get("negatives", []):
        yield from check_negatives(path)
    for path in paths.get("rows", []):
        settings = settings_of(path, args)
        if not settings.task:
            note = "without --task only what holds for every TSV is checked"
            print(f"{path}: {note}", file=sys.stderr)
        yield scan(path, settings, args.jobs)


def _show(report: Any, most: int) -> None:
    """Findings, at most a given number per rule, the classes, and a last line with the counts."""
    from ofa.io.terminal import with_noun
    from ofa.task.answers import counts_in_words

    printed: Counter = Counter()
    for finding in report.findings:
        printed[finding.rule] += 1
        if printed[finding.rule] <= most:
            print(finding.line(report.path))
    for rule, count in sorted(report.counts.items()):
        if count > most:
            print(f"{report.path}: {rule}: {count} in all")
    faults, notes = (
        f"{number or 'no'} {name}{'' if number == 1 else 's'}"
        for number, name in ((report.faults, "fault"), (report.notes, "note"))
    )
    if report.classes:
        print(f"{report.path}: {counts_in_words(report.classes)}")
    task = f", task {report.task}" if report.task and report.unit == "rows" else ""
    is_rows = report.unit == "rows"
    units = with_noun(report.rows, "row") if is_rows else f"{report.rows} {report.unit}"
    print(f"{report.path}: {units}{task}: {faults}, {notes}")


def _repair(report: Any, copy: str, jobs: int) -> dict[str, Any]:
    """Write the copy and tell what it holds."""
    from ofa.doctor.scan import repair
    from ofa.io.terminal import with_noun

    done = repair(report, copy, jobs)
    for finding in done.left_out:
        print(f"skipped: {finding.line(report.path)}")
    print(
        f"{done.path}: {with_noun(done.rows, 'row')}, {done.repaired} repaired, {done.renamed} with"
        f" a new id; {done.num_left_out} skipped"
    )
    content = asdict(done)
    content["mended"] = content.pop("repaired")  # keys of files stay as they are
    return content
