"""``ofa doctor``: looks over environment, vocabulary, checkpoint and data before a training
does."""

import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.flags import Parser, command, option
from ofa.io.jobs import JobsOptions

LISTED = 20  # findings printed per rule


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(JobsOptions):
    """What to check, and how."""

    paths: tuple[str, ...] = option(
        (),
        "TSV files, shards, vocabulary folders, folders of negative samples, checkpoints",
        positional=True,
    )
    task: str | None = option(None, "task of the TSV files, if their names do not tell")
    selected_cols: str | None = option(
        None, "columns as given to the training, if not those of the task"
    )
    bpe_dir: str | None = option(
        None, "vocabulary folder to check, and to use on texts and checkpoints"
    )
    ans2label_file: str | None = option(
        None, "label file that must have the answers or class words"
    )
    max_src_length: int | None = option(
        None, "words of a source that are kept, if not as in the recipes"
    )
    max_tgt_length: int | None = option(
        None, "words of a target that are kept, if not as in the recipes"
    )
    code_dict_size: int = option(8192, "image codes of the vocabulary")
    code_image_size: int | None = option(
        None, "side in pixels of images as codes, if not 256 (pretraining: 128)"
    )
    evaluation: bool = option(False, "rows may lack answers, labels and captions")
    no_images: bool = option(False, "do not decode images: much faster")
    json: str | None = option(None, "report to write")
    fix: str | None = option(None, "repaired copy to write; what cannot be repaired is skipped")
    max_findings: int = option(LISTED, "findings printed per file and rule")
    rules: bool = option(False, "list the rules and what --fix does about each")


def set_up(parser: Parser) -> None:
    """The flags of ``ofa doctor``."""
    command(
        parser,
        DoctorOptions,
        run,
        description="Without paths: checks the environment. Prints one line per finding, "
        "FILE:ROW:COLUMN rule - found - fix (rows from 1, columns from 0 as in --selected-cols, * "
        "is the whole row). Exit status: 0 all well, 1 faults; notes, such as texts that will be "
        "cut, are no faults.",
        example="example: ofa doctor dataset/vqa_data/vqa_train.tsv --task vqa_gen "
        "--ans2label-file trainval_ans2label.pkl --bpe-dir bpe/gpt2 --fix vqa_train_fixed.tsv",
    )


def run(arguments: DoctorOptions) -> int:
    """Check all that is named. Returns 1 if anything has faults."""
    from ofa.doctor.environment import FAULT, check_environment
    from ofa.doctor.model_files import kind_of

    if arguments.rules:
        return _list_rules()
    paths: dict[str, list[str]] = {}
    for path in arguments.paths:
        paths.setdefault(kind_of(path), []).append(path)
    if arguments.fix:
        _check_copy(arguments.fix, paths.get("rows", []))
    environment = [] if paths else check_environment()
    for check in environment:
        print(check.line())
    reports = []
    for report in _reports(paths, arguments):
        _show(report, arguments.max_findings)
        reports.append(report)
    repaired = _repair(reports[-1], arguments.fix, arguments.jobs) if arguments.fix else None
    faults = any(check.state == FAULT for check in environment) or any(r.faults for r in reports)
    if arguments.json:
        content: dict[str, Any] = {"ok": not faults}
        content["environment"] = list(map(dataclasses.asdict, environment))
        content["files"] = list(map(_entry, reports))
        if repaired is not None:
            content["repaired"] = repaired
        with replacing(arguments.json) as file:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.write("\n")
    return int(faults)


def _entry(report: Any) -> dict[str, Any]:
    """A report on a file, in the file of ``--json``."""
    return {
        "path": report.path,
        "task": report.task,
        "rows": report.rows,
        "faults": report.faults,
        "notes": report.notes,
        "by_rule": dict(sorted(report.counts.items())),
        "findings": list(map(dataclasses.asdict, report.findings)),
    }


def _check_copy(copy: str, sources: list[str]) -> None:
    """Raises: UserError unless there is one file of rows to repair, and the copy is another."""
    if len(sources) != 1:
        raise UserError(f"--fix {copy}: expected one TSV to repair, found {len(sources)}")
    if os.path.exists(copy) and os.path.samefile(copy, sources[0]):
        raise UserError(
            f"--fix {copy}: expected another file than the one to repair; choose a new name"
        )


def _reports(paths: dict[str, list[str]], arguments: DoctorOptions) -> Iterator[Any]:
    """Of vocabularies, checkpoints, negative samples and rows. Args: paths: by their kind."""
    from ofa.doctor.model_files import check_checkpoint, check_vocabulary
    from ofa.doctor.negatives import check_negatives
    from ofa.doctor.scan import scan
    from ofa.doctor.schemas import settings_of

    given = [arguments.bpe_dir] if arguments.bpe_dir else []
    yield from map(check_vocabulary, dict.fromkeys([*paths.get("vocabulary", []), *given]))
    for path in paths.get("checkpoint", []):
        yield check_checkpoint(path, arguments.bpe_dir)
    for path in paths.get("negatives", []):
        yield from check_negatives(path)
    for path in paths.get("rows", []):
        settings = settings_of(path, arguments)
        if not settings.task:
            note = "without --task only what holds for every TSV is checked"
            print(f"{path}: {note}", file=sys.stderr)
        yield scan(path, settings, arguments.jobs)


def _show(report: Any, most: int) -> None:
    """Findings, at most a given number per rule, and a last line with the counts."""
    printed: Counter = Counter()
    for finding in report.findings:
        printed[finding.rule] += 1
        if printed[finding.rule] <= most:
            print(finding.line(report.path))
    for rule, count in sorted(report.counts.items()):
        if count > most:
            print(f"{report.path}: {rule}: {count} in all")
    counts = [
        f"{number or 'no'} {name}{'' if number == 1 else 's'}"
        for number, name in ((report.faults, "fault"), (report.notes, "note"))
    ]
    task = f", task {report.task}" if report.task and report.unit == "rows" else ""
    print(f"{report.path}: {report.rows} {report.unit}{task}: {', '.join(counts)}")


def _repair(report: Any, copy: str, jobs: int) -> dict[str, Any]:
    """Write the copy and tell what it holds."""
    from ofa.doctor.repair import repair

    done = repair(report, copy, jobs)
    for finding in done.left_out:
        print(f"skipped: {finding.line(report.path)}")
    print(
        f"{done.path}: {done.rows} rows, {done.repaired} of them repaired, {done.renamed} with"
        f" a new id; {done.num_left_out} skipped"
    )
    content = dataclasses.asdict(done)
    content["mended"] = content.pop("repaired")  # keys of files stay as they are
    return content


def _list_rules() -> int:
    """Every rule of data files once, by name."""
    from ofa.doctor.negatives import NEGATIVE_RULES
    from ofa.doctor.rows import IMAGE_RULES
    from ofa.doctor.rules import ROW_RULES, rules_of
    from ofa.doctor.scan import FILE_RULES, SAMPLE
    from ofa.doctor.schemas import schemas

    columns = [column for schema in schemas().values() for column in schema.columns]
    cells = (rule for column in columns for rule in rules_of(column))
    every = (*FILE_RULES, *ROW_RULES, *cells, *IMAGE_RULES, SAMPLE, *NEGATIVE_RULES)
    for _, rule in sorted({(rule.name, rule.expects): rule for rule in every}.items()):
        print(f"{rule.name:<18} expects {rule.expects}; {rule.fate}")
    return 0
