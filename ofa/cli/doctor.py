"""``ofa doctor``: looks over environment, vocabulary, checkpoint and data before a training
does."""

import dataclasses
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass

from ofa.cli.options import JobsOptions
from ofa.errors import UserError
from ofa.io.flags import Parser, command, option

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
    if arguments.rules:
        return _list_rules()
    from ofa.doctor.model_files import (
        check_checkpoint,
        check_vocabulary,
        is_checkpoint,
        is_vocabulary,
    )
    from ofa.doctor.negatives import check_negatives, is_negatives, repair_negatives

    negatives = list(filter(is_negatives, arguments.paths))
    tables = [
        path
        for path in arguments.paths
        if not (is_checkpoint(path) or is_vocabulary(path) or path in negatives)
    ]
    if arguments.fix and len(tables) + len(negatives) != 1:
        raise UserError(
            f"--fix {arguments.fix}: expected one TSV to repair, found"
            f" {len(tables) + len(negatives)}"
        )
    if (
        arguments.fix
        and os.path.exists(arguments.fix)
        and os.path.samefile(arguments.fix, *tables, *negatives)
    ):
        raise UserError(
            f"--fix {arguments.fix}: expected another file than the one to repair; choose a new"
            " name"
        )
    environment = [] if arguments.paths else _environment()
    reports, repaired = [], None
    for folder in dict.fromkeys(
        [*filter(is_vocabulary, arguments.paths), *filter(None, [arguments.bpe_dir])]
    ):
        reports.append(check_vocabulary(folder))
        _show(reports[-1], arguments, f"{reports[-1].rows} text entries")
    for path in filter(is_checkpoint, arguments.paths):
        reports.append(check_checkpoint(path, arguments.bpe_dir))
        _show(reports[-1], arguments, f"{reports[-1].rows} tensors")
    for folder in negatives:
        for report in check_negatives(folder):
            reports.append(report)
            _show(report, arguments, f"{report.rows} entries")
        if arguments.fix:
            repaired = repair_negatives(folder, arguments.fix)
            print(
                f"{arguments.fix}: "
                + ", ".join(f"{name} of {count} entries" for name, count in repaired.items())
            )
    for path in tables:
        report = _scan(path, arguments)
        reports.append(report)
        _show(
            report,
            arguments,
            f"{report.rows} rows" + (f", task {report.task}" if report.task else ""),
        )
        if arguments.fix:
            repaired = _repair(report, arguments.fix, arguments.jobs)
    if arguments.json:
        _write_json(arguments.json, environment, reports, repaired)
    faults = sum(report.faults for report in reports) + sum(
        check.state == "fault" for check in environment
    )
    return 1 if faults else 0


def _list_rules() -> int:
    """Every rule of data files once, by name."""
    from ofa.doctor.negatives import NEGATIVE_RULES, REPAIRED
    from ofa.doctor.repair import REPAIRED_IN_FILES
    from ofa.doctor.rows import IMAGE_RULES
    from ofa.doctor.rules import ROW_RULES, rules_of
    from ofa.doctor.scan import FILE_RULES, SAMPLE
    from ofa.doctor.schemas import schemas

    columns = [column for schema in schemas().values() for column in schema.columns]
    cells = (rule for column in columns for rule in rules_of(column))
    rules = {
        (rule.name, rule.expects): rule
        for rule in (*FILE_RULES, *ROW_RULES, *cells, *IMAGE_RULES, SAMPLE, *NEGATIVE_RULES)
    }
    for (name, expects), rule in sorted(rules.items()):
        if rule.note:
            fate = "a note"
        elif rule.repair is not None or name in REPAIRED_IN_FILES | REPAIRED:
            fate = "--fix repairs it, where it can"
        else:
            fate = (
                "for you to repair"
                if rule in (*FILE_RULES, *NEGATIVE_RULES)
                else "--fix skips the row"
            )
        print(f"{name:<18} expects {expects}; {fate}")
    return 0


def _environment() -> list:
    from ofa.doctor.environment import check_environment

    checks = check_environment()
    for check in checks:
        print(check.line())
    return checks


def _scan(path: str, arguments: DoctorOptions):
    """The report on a TSV."""
    from ofa.doctor.row_source import name_for_guessing
    from ofa.doctor.rule import Settings
    from ofa.doctor.scan import scan
    from ofa.doctor.schemas import codes_of, schema_of
    from ofa.task.label_file import read_label_file

    schema = schema_of(name_for_guessing(path), arguments.task)
    if schema is None:
        print(f"{path}: without --task only what holds for every TSV is checked", file=sys.stderr)
        return scan(path, Settings(images=False), arguments.jobs)
    numbers = schema.numbers(_numbers(path, arguments.selected_cols))
    codes, side = codes_of(schema, arguments.code_image_size)
    labels = arguments.ans2label_file
    settings = Settings(
        task=schema.name,
        columns=tuple(zip(schema.columns_named(numbers), numbers.values(), strict=True)),
        by_type=getattr(schema, "by_type", {}),
        max_src=arguments.max_src_length or 0,
        max_tgt=arguments.max_tgt_length or 0,
        num_codes=arguments.code_dict_size,
        codes=codes,
        image_side=side,
        answers=frozenset(read_label_file(labels)) if labels else None,
        bpe_dir=_usable(arguments.bpe_dir),
        images=not arguments.no_images,
        evaluation=arguments.evaluation,
    )
    return scan(path, settings, arguments.jobs)


def _numbers(path: str, selected_cols: str | None) -> str | None:
    """``--selected-cols`` as numbers: shards of others have names for their columns."""
    from ofa.data.rows import open_rows
    from ofa.data.shards import names_shards

    if not selected_cols or not names_shards(path):
        return selected_cols
    return ",".join(map(str, open_rows(path, selected_cols).selected_cols))


def _usable(bpe_dir: str | None) -> str:
    """The vocabulary folder, unless it is broken: that is said once, not for every text."""
    from ofa.doctor.text_rules import language

    try:
        if bpe_dir:
            language(bpe_dir)
    except UserError:
        return ""
    return bpe_dir or ""


def _show(report, arguments: DoctorOptions, size: str) -> None:
    """Findings, at most a given number per rule, and a last line with the counts."""
    printed: Counter = Counter()
    for finding in report.findings:
        printed[finding.rule] += 1
        if printed[finding.rule] <= arguments.max_findings:
            print(finding.line(report.path))
    more = {
        rule: count
        for rule, count in sorted(report.counts.items())
        if count > arguments.max_findings
    }
    for rule, count in more.items():
        print(f"{report.path}: {rule}: {count} in all")
    print(
        f"{report.path}: {size}: {_count(report.faults, 'fault')},"
        f" {_count(report.num_notes, 'note')}"
    )


def _count(number: int, name: str) -> str:
    return f"{number or 'no'} {name}{'' if number == 1 else 's'}"


def _repair(report, path: str, jobs: int):
    from ofa.doctor.repair import repair

    done = repair(report, path, jobs)
    for finding in done.left_out:
        print(f"skipped: {finding.line(report.path)}")
    print(
        f"{done.path}: {done.rows} rows, {done.repaired} of them repaired, {done.renamed} with"
        f" a new id; {done.num_left_out} skipped"
    )
    return done


def _write_json(path: str, environment: list, reports: list, repaired) -> None:
    from ofa.io.atomic import replacing

    files = [
        {
            "path": report.path,
            "task": report.task,
            "rows": report.rows,
            "faults": report.faults,
            "notes": report.num_notes,
            "by_rule": dict(sorted(report.counts.items())),
            "findings": [dataclasses.asdict(f) for f in report.findings],
        }
        for report in reports
    ]
    content = {
        "ok": (
            not any(report.faults for report in reports)
            and all(check.state != "fault" for check in environment)
        ),
        "environment": [dataclasses.asdict(check) for check in environment],
        "files": files,
    }
    if repaired is not None:
        if not isinstance(repaired, dict):
            repaired = dataclasses.asdict(repaired)
            repaired["mended"] = repaired.pop("repaired")  # keys of files stay as they are
        content["repaired"] = repaired
    with replacing(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")
