"""Read damaged input of every kind and count what comes of it.

    python tests/fuzz/run.py --rows 400000 --files 100000 --images 20000 --seed 1

Right is a value, or a ``UserError`` of one line that names the file (and the row, where there are
rows). Anything else is a fault: another exception, a value that cannot be (a token outside of the
vocabulary, a number that is not finite), a read that takes too long, a process, a socket, a file
written elsewhere. Each is printed with what repeats it; the exit status is 1 then.
"""

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

for part in ("tests", "tests/unit", "."):  # as tests/conftest.py has it
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / part))

from fuzz.files import FileTarget, file_targets  # noqa: E402
from fuzz.guard import Guard  # noqa: E402
from fuzz.images import damaged_image  # noqa: E402
from fuzz.mutations import mutated_bytes, mutated_text  # noqa: E402
from fuzz.rows import RowTarget, faults_of, row_targets, stand_in  # noqa: E402
from pretraining_files import make_files  # noqa: E402
from small_bpe import MAKERS  # noqa: E402
from tqdm import tqdm  # noqa: E402

from ofa.errors import UserError  # noqa: E402

SLOW = 5.0  # seconds of processor time that one read may take
SHOWN = 20  # faults that are printed
WHERE = "fuzzed.tsv:17"


@dataclass
class Report:
    """Outcomes by target, and the faults."""

    outcomes: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def fault(self, kind: str, repeat: str, finding: str) -> None:
        self.outcomes[kind, "fault"] += 1
        self.faults.append(f"{repeat}: {finding}")

    def try_reading(
        self, kind: str, repeat: str, read: Callable[[], list[str]], named: Sequence[str]
    ) -> None:
        """Args: read: what is called; returns what is wrong with its value. named: what an error
        has to contain."""
        started = time.process_time()
        try:
            wrong = read()
            if wrong:
                self.fault(kind, repeat, "; ".join(wrong))
            else:
                self.outcomes[kind, "value"] += 1
        except UserError as error:
            message = str(error)
            if not all(name in message for name in named) or "\n" in message or len(message) > 4000:
                self.fault(
                    kind,
                    repeat,
                    f"an error of {len(message)} characters without {', '.join(named)}, or of"
                    f" several lines: {message[:300]!r}",
                )
            else:
                self.outcomes[kind, "UserError"] += 1
        except (Exception, RecursionError, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.fault(
                kind,
                repeat,
                f"{type(error).__name__}: {str(error)[:160]}"
                f" ({last.filename.rpartition('/')[2]}:{last.lineno})",
            )
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, (seconds, repeat))
        if seconds > SLOW:
            self.fault(kind, repeat, f"took {seconds:.1f} s")


def read_row(target: RowTarget, row: dict[str, str], open_image: Any) -> list[str]:
    return [
        fault
        for sample in target.read(row, WHERE, open_image)
        for fault in faults_of(sample, target.vocabulary)
    ]


def read_file(target: FileTarget) -> list[str]:
    target.read()
    return []


def fuzz_rows(targets: list[RowTarget], count: int, seed: int, report: Report) -> Iterator[None]:
    """Columns of text are damaged; images are stand-ins."""
    for number in range(count):
        target = targets[number % len(targets)]
        rng = random.Random(f"{seed}-rows-{number}")
        row = target.whole_row(rng)
        texts = [name for name in target.columns if name != "image"] or list(target.columns)
        for name in rng.sample(texts, min(len(texts), rng.choice((1, 1, 2)))):
            row[name] = mutated_text(row[name], rng)
        # a row of a TSV has none
        row = {name: value.replace("\t", " ").replace("\n", " ") for name, value in row.items()}
        report.try_reading(
            target.name.split()[0],
            f"--seed {seed} row {number} {target.name} {short(row)}",
            partial(read_row, target, row, partial(stand_in, (40, 30))),
            [WHERE],
        )
        yield


def fuzz_images(targets: list[RowTarget], count: int, seed: int, report: Report) -> Iterator[None]:
    """The column of the image is damaged."""
    targets = [target for target in targets if "image" in target.columns]
    for number in range(count):
        target = targets[number % len(targets)]
        rng = random.Random(f"{seed}-images-{number}")
        row = target.whole_row(rng) | {"image": damaged_image(rng)}
        report.try_reading(
            "image",
            f"--seed {seed} image {number} {target.name}",
            partial(read_row, target, row, None),
            [WHERE],
        )
        yield


def fuzz_files(targets: list[FileTarget], count: int, seed: int, report: Report) -> Iterator[None]:
    """Bytes of a file are damaged; it is whole again afterwards."""
    for number in range(count):
        target = targets[number % len(targets)]
        rng = random.Random(f"{seed}-files-{number}")
        other = targets[rng.randrange(len(targets))].whole
        target.path.write_bytes(target.wrap(mutated_bytes(target.whole, rng, other)))
        report.try_reading(
            target.name,
            f"--seed {seed} file {number} {target.name}",
            partial(read_file, target),
            [target.named],
        )
        target.path.write_bytes(target.wrap(target.whole))
        yield


def short(row: dict[str, str]) -> str:
    return str(
        {name: value if len(value) < 60 else f"{value[:57]}..." for name, value in row.items()}
    )


def run(
    folder: Path, rows: int, files: int, images: int, seed: int, guard: Guard, quiet: bool = False
) -> Report:
    """Everything, in ``folder``. Returns: what was found, what the guard saw among it."""
    vocabularies = {kind: make(folder / "vocabularies" / kind) for kind, make in MAKERS.items()}
    negatives = make_files(folder / "pretraining").negatives
    of_rows = row_targets({kind: vocabularies[kind] for kind in ("gpt2", "bert")}, negatives)
    of_files = file_targets(folder / "files", vocabularies)
    os.environ["OFA_INDEX_DIR"] = str(folder / "indices")
    report = Report()
    for target in of_files:  # damage to what was never right would show nothing
        target.read()
    with (
        guard.watching(folder) as seen,
        tqdm(total=rows + files + images, disable=True if quiet else None, mininterval=2) as bar,
    ):
        for steps in (
            fuzz_rows(of_rows, rows, seed, report),
            fuzz_files(of_files, files, seed, report),
            fuzz_images(of_rows, images, seed, report),
        ):
            for _ in steps:
                bar.update()
                if seen:
                    report.fault("guard", f"after {sum(report.outcomes.values())} reads", seen[0])
                    seen.clear()
    return report


def table(report: Report) -> str:
    """Counts of outcomes by target."""
    names = list(dict.fromkeys(name for name, _ in report.outcomes))
    lines = [f"{'':28}{'value':>10}{'UserError':>11}{'fault':>8}"]
    for name in names:
        lines.append(
            f"{name:28}"
            + "".join(
                f"{report.outcomes[name, outcome]:>{width}}"
                for outcome, width in (("value", 10), ("UserError", 11), ("fault", 8))
            )
        )
    totals = [
        sum(count for (_, outcome), count in report.outcomes.items() if outcome == wanted)
        for wanted in ("value", "UserError", "fault")
    ]
    lines.append(f"{'together':28}{totals[0]:>10}{totals[1]:>11}{totals[2]:>8}")
    return "\n".join([*lines, f"slowest: {report.slowest[0]:.2f} s, {report.slowest[1]}"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("rows", 400_000), ("files", 100_000), ("images", 20_000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            Path(folder), arguments.rows, arguments.files, arguments.images, arguments.seed, Guard()
        )
    print(table(report))
    kinds = Counter(fault.rpartition("(")[2] for fault in report.faults)
    shown: Counter = Counter()
    for fault in report.faults:
        kind = fault.rpartition("(")[2]
        shown[kind] += 1
        if shown[kind] <= 2 and sum(shown.values()) < 40 * SHOWN:
            print(f"FAULT ({kinds[kind]} alike) {fault[:700]}")
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())
