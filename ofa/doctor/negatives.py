"""The folder of negative samples under the doctor's eyes: ``all_captions.txt``, ``object.txt``
and ``type2ans.json``."""

import json
from collections.abc import Iterator
from pathlib import Path

from ofa.data.negatives import ANSWERS, CAPTIONS, OBJECTS, OTHER
from ofa.doctor.rows import Finding
from ofa.doctor.rule import Rule, shown
from ofa.doctor.scan import LISTED, FileReport, digest
from ofa.io.atomic import replacing
from ofa.io.json_files import load_json
from ofa.io.values import RowError, text_of

BUILD = "make it again: ofa negatives build"
MISSING = Rule(
    "negatives-file", f"{CAPTIONS}, {OBJECTS} and {ANSWERS} in the folder, in UTF-8", None, BUILD
)
EMPTY_LINE = Rule(
    "negatives-line",
    "a caption or name in every line, without spaces around it",
    None,
    "remove the line, or the spaces",
)
AGAIN = Rule(
    "negatives-again",
    "every caption and name once",
    None,
    "remove the line: what comes twice is drawn twice as often",
)
FEW = Rule(
    "negatives-few", "at least two entries: one to draw where the other is right", None, BUILD
)
JSON_LISTS = Rule("negatives-json", "JSON of lists of answers by kind", None, BUILD)
NO_OTHER = Rule(
    "negatives-other",
    f"a list {OTHER!r} with at least two answers: for those of unknown kind",
    None,
    f"add {OTHER!r} with the answers of all kinds",
)
ONE_ANSWER = Rule(
    "negatives-kind", "at least two answers of every kind", None, f"move the answer to {OTHER!r}"
)
EMPTY_ANSWER = Rule(
    "negatives-answer", "answers with words, each once in its kind", None, "remove it"
)
TWO_KINDS = Rule(
    "negatives-two-kinds",
    "every answer in one kind",
    None,
    "remove it from the others: the last kind counts",
    note=True,
)
NEGATIVE_RULES = (
    MISSING,
    EMPTY_LINE,
    AGAIN,
    FEW,
    JSON_LISTS,
    NO_OTHER,
    ONE_ANSWER,
    EMPTY_ANSWER,
    TWO_KINDS,
)
REPAIRED = {EMPTY_LINE.name, AGAIN.name, NO_OTHER.name, ONE_ANSWER.name, EMPTY_ANSWER.name}


def is_negatives(path: str) -> bool:
    """Whether it is a folder that should hold them: it has at least one of the files, or their
    usual name."""
    folder = Path(path)
    return folder.is_dir() and (
        folder.name == "negative_sample"
        or any((folder / name).is_file() for name in (CAPTIONS, OBJECTS, ANSWERS))
    )


def check_negatives(folder: str) -> list[FileReport]:
    """A report on each of the three files."""
    reports = []
    for name, look in (
        (CAPTIONS, _look_at_lines),
        (OBJECTS, _look_at_lines),
        (ANSWERS, _look_at_answers),
    ):
        path = Path(folder) / name
        report = FileReport(str(path), "negative samples")
        try:
            look(path, report)
        except FileNotFoundError:
            report.add(Finding.of(MISSING, f"no {name}"))
        except OSError as error:
            report.add(Finding.of(MISSING, f"{name}, which cannot be read ({error.strerror})"))
        except UnicodeDecodeError as error:
            report.add(
                Finding.of(MISSING, f"{name} with the byte 0x{error.object[error.start]:02x}")
            )
        reports.append(report.finish())
    return reports


def _look_at_lines(path: Path, report: FileReport) -> None:
    seen: set[int] = set()  # digests: a file of captions may be large
    for number, line in enumerate(_lines(path), 1):
        report.rows = number
        text = line.strip()
        rule = EMPTY_LINE if not text or text != line else AGAIN if digest(text) in seen else None
        seen.add(digest(text))
        if rule is not None:
            report.counts[rule.name] += 1
            if report.counts[rule.name] <= LISTED:
                report.findings.append(
                    Finding.of(rule, shown(line) if line else "an empty line", 0, number)
                )
    if len(seen) < 2:
        report.add(Finding.of(FEW, str(len(seen))))


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", newline="\n") as file:
        yield from (line.removesuffix("\n") for line in file)


def _look_at_answers(path: Path, report: FileReport) -> None:
    kinds = read_kinds(path)
    if kinds is None:
        report.add(Finding.of(JSON_LISTS, shown(path.read_text(encoding="utf-8"))))
        return
    report.rows = sum(map(len, kinds.values()))
    if len(set(kinds.get(OTHER, ()))) < 2:
        found = "none" if OTHER not in kinds else f"{len(set(kinds[OTHER]))}"
        report.add(Finding.of(NO_OTHER, found))
    kind_of: dict[str, str] = {}
    for kind, answers in kinds.items():
        if kind != OTHER and len(set(answers)) < 2:
            report.add(Finding.of(ONE_ANSWER, f"{len(set(answers))} of {kind!r}"))
        for answer in dict.fromkeys(answers):
            if not answer.strip() or answers.count(answer) > 1:
                report.add(
                    Finding.of(
                        EMPTY_ANSWER, f"{answer!r} {answers.count(answer)} times in {kind!r}"
                    )
                )
            elif kind != OTHER and kind_of.setdefault(answer, kind) != kind:
                report.add(Finding.of(TWO_KINDS, f"{answer!r} in {kind_of[answer]!r} and {kind!r}"))


def read_kinds(path: Path) -> dict[str, list[str]] | None:
    """Answers by kind; None if the file holds something else."""
    try:
        content = load_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        return None
    lists = isinstance(content, dict) and all(isinstance(part, list) for part in content.values())
    try:
        return (
            {
                kind: [text_of(answer, "an answer", "answer") for answer in answers]
                for kind, answers in content.items()
            }
            if lists
            else None
        )
    except RowError:
        return None


def repair_negatives(folder: str, out: str) -> dict[str, int]:
    """Write repaired copies of what can be repaired. Returns: file name -> entries of the copy."""
    sound = {
        Path(report.path).name
        for report in check_negatives(folder)
        if not report.counts.keys() & {MISSING.name, JSON_LISTS.name}
    }
    counts = {}
    for name in (CAPTIONS, OBJECTS):
        if name in sound:
            with replacing(Path(out) / name) as file:
                lines = dict.fromkeys(filter(None, map(str.strip, _lines(Path(folder) / name))))
                file.writelines(f"{line}\n" for line in lines)
            counts[name] = len(lines)
    if ANSWERS in sound:
        kinds = {
            kind: list(dict.fromkeys(answer for answer in answers if answer.strip()))
            for kind, answers in (read_kinds(Path(folder) / ANSWERS) or {}).items()
        }
        kept = {
            kind: answers for kind, answers in kinds.items() if kind != OTHER and len(answers) > 1
        }
        rest = list(
            dict.fromkeys(
                [
                    *kinds.get(OTHER, ()),
                    *(
                        answers[0]
                        for kind, answers in kinds.items()
                        if kind not in kept and answers
                    ),
                ]
            )
        )
        if len(rest) < 2:
            rest = list(
                dict.fromkeys([*rest, *(answer for answers in kept.values() for answer in answers)])
            )
        with replacing(Path(out) / ANSWERS) as file:
            json.dump({**kept, OTHER: rest}, file, ensure_ascii=False, indent=1)
            file.write("\n")
        counts[ANSWERS] = len(set(rest).union(*kept.values()))
    return counts
