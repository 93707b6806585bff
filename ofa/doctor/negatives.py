"""The folder of negative samples under the doctor's eyes: ``all_captions.txt``, ``object.txt``
and ``type2ans.json``."""

from pathlib import Path

from ofa.data.negatives import ANSWERS, CAPTIONS, OBJECTS, OTHER, read_answers
from ofa.doctor.rule import Report, Rule, shown
from ofa.doctor.scan import digest
from ofa.errors import UserError

BUILD = "make it again: ofa negatives build"
MISSING = Rule(
    "negatives-file", f"{CAPTIONS}, {OBJECTS} and {ANSWERS} in the folder, in UTF-8", BUILD
)
EMPTY_LINE = Rule(
    "negatives-line",
    "a caption or name in every line, without spaces around it",
    "remove the line, or the spaces",
)
AGAIN = Rule(
    "negatives-again",
    "every caption and name once",
    "remove the line: what comes twice is drawn twice as often",
)
FEW = Rule("negatives-few", "at least two entries: one to draw where the other is right", BUILD)
JSON_LISTS = Rule("negatives-json", "JSON of lists of answers by kind", BUILD)
NO_OTHER = Rule(
    "negatives-other",
    f"a list {OTHER!r} with at least two answers: for those of unknown kind",
    f"add {OTHER!r} with the answers of all kinds",
)
ONE_ANSWER = Rule(
    "negatives-kind", "at least two answers of every kind", f"move the answer to {OTHER!r}"
)
EMPTY_ANSWER = Rule("negatives-answer", "answers with words, each once in its kind", "remove it")
TWO_KINDS = Rule(
    "negatives-two-kinds",
    "every answer in one kind",
    "remove it from the others: the last kind counts",
    note=True,
)
NEGATIVE_RULES = (
    *(MISSING, EMPTY_LINE, AGAIN, FEW, JSON_LISTS),
    *(NO_OTHER, ONE_ANSWER, EMPTY_ANSWER, TWO_KINDS),
)


def is_negatives(path: str) -> bool:
    """Whether it is a folder that should hold them: it has at least one of the files, or their
    usual name."""
    folder = Path(path)
    return folder.is_dir() and (
        folder.name == "negative_sample"
        or any((folder / name).is_file() for name in (CAPTIONS, OBJECTS, ANSWERS))
    )


def check_negatives(folder: str) -> list[Report]:
    """A report on each of the three files."""
    return [_check(Path(folder) / name) for name in (CAPTIONS, OBJECTS, ANSWERS)]


def _check(path: Path) -> Report:
    report = Report(str(path), "negative samples", "entries")
    try:
        if path.name == ANSWERS:
            _look_at_answers(path, report)
        else:
            _look_at_lines(path, report)
    except FileNotFoundError:
        report.add(MISSING.finding(f"no {path.name}"))
    except OSError as error:
        report.add(MISSING.finding(f"{path.name}, which cannot be read ({error.strerror})"))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        report.add(MISSING.finding(f"{path.name} with the byte 0x{byte:02x}"))
    report.sort()
    return report


def _look_at_lines(path: Path, report: Report) -> None:
    seen: set[int] = set()  # digests: a file of captions may be large
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            line = line.removesuffix("\n")
            text, report.rows = line.strip(), number
            if not text or text != line:
                found = shown(line) if line else "an empty line"
                report.add(EMPTY_LINE.finding(found, number, 0))
            elif digest(text) in seen:
                report.add(AGAIN.finding(shown(line), number, 0))
            seen.add(digest(text))
    if len(seen) < 2:
        report.add(FEW.finding(str(len(seen))))


def _look_at_answers(path: Path, report: Report) -> None:
    text = path.read_text(encoding="utf-8")
    try:
        kinds = read_answers(path)
    except UserError:
        report.add(JSON_LISTS.finding(shown(text)))
        return
    report.rows = sum(map(len, kinds.values()))
    if len(set(kinds.get(OTHER, ()))) < 2:
        report.add(NO_OTHER.finding(str(len(set(kinds[OTHER]))) if OTHER in kinds else "none"))
    kind_of: dict[str, str] = {}
    for kind, answers in kinds.items():
        if kind != OTHER and len(set(answers)) < 2:
            report.add(ONE_ANSWER.finding(f"{len(set(answers))} of {kind!r}"))
        for answer in dict.fromkeys(answers):
            count = answers.count(answer)
            if not answer.strip() or count > 1:
                report.add(EMPTY_ANSWER.finding(f"{answer!r} {count} times in {kind!r}"))
            elif kind != OTHER and kind_of.setdefault(answer, kind) != kind:
                report.add(TWO_KINDS.finding(f"{answer!r} in {kind_of[answer]!r} and {kind!r}"))
