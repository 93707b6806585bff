"""Result files of the GLUE tasks -> the zip that the GLUE site takes: one TSV per test set.

MNLI-m.tsv    index <tab> prediction
              0     <tab> entailment
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.text_files import read_text
from ofa.submit.coco_vqa_muge import add_member
from ofa.task.results import read_predictions

HEADER = "index\tprediction"
NUMBERS = {"no": "0", "yes": "1"}
IMPLIED = {"no": "not_entailment", "yes": "entailment"}
INFERENCE = {"no": "contradiction", "yes": "entailment", "maybe": "neutral"}


@dataclass(frozen=True)
class TestSet:
    """Args: file: in the zip. rows: of the test set. words: answer of the model -> what the site
    calls it."""

    __test__ = False  # not for pytest
    file: str
    rows: int
    words: Mapping[str, str]


TEST_SETS = {
    "cola": TestSet("CoLA.tsv", 1063, NUMBERS),
    "mnli-m": TestSet("MNLI-m.tsv", 9796, INFERENCE),
    "mnli-mm": TestSet("MNLI-mm.tsv", 9847, INFERENCE),
    "mrpc": TestSet("MRPC.tsv", 1725, NUMBERS),
    "qnli": TestSet("QNLI.tsv", 5463, IMPLIED),
    "qqp": TestSet("QQP.tsv", 390965, NUMBERS),
    "rte": TestSet("RTE.tsv", 3000, IMPLIED),
    "sst2": TestSet("SST-2.tsv", 1821, {"negative": "0", "positive": "1"}),
}
# that OFA has no task for; the site wants the first two as well
OTHERS = ("STS-B.tsv", "WNLI.tsv", "AX.tsv")


def glue_upload(
    results: Mapping[str, str | Path], others: Sequence[str | Path], out: str | Path
) -> dict[str, int]:
    """Write the zip.

    Args:
        results: name of ``TEST_SETS`` -> result file of its test rows.
        others: files of ``OTHERS``, such as those of the site's sample submission; they go in as
            they are.
    Returns: rows by file name. Raises: UserError; nothing is written then.
    """
    members = {
        TEST_SETS[name].file: upload_text(path, TEST_SETS[name]) for name, path in results.items()
    }
    members |= {Path(path).name: other_text(path) for path in others}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            add_member(archive, name, text)
    with replacing(out, "wb") as file:
        file.write(content.getvalue())
    return {name: text.count("\n") - 1 for name, text in members.items()}


def upload_text(path: str | Path, test_set: TestSet) -> str:
    """The TSV of a result file. Raises: UserError if it is not the answers of rows 0, 1, 2, ...
    of the task."""
    lines = [HEADER]
    for number, entry in enumerate(read_predictions(path)):
        where = f"{path}: entry {number + 1}"
        answer = entry.get("answer") if isinstance(entry, dict) else None
        if not isinstance(answer, str) or answer not in test_set.words:
            raise UserError(
                f"{where}: expects an answer ({', '.join(test_set.words)}) for {test_set.file},"
                f" found {answer!r}; is it the result file of another task?"
            )
        if str(entry.get("uniq_id")) != str(number):
            raise UserError(
                f"{where}: expects the answer to row {number} of the test set, found row"
                f" {entry.get('uniq_id')!r}; evaluate the whole test file in its order"
            )
        lines.append(f"{number}\t{test_set.words[answer]}")
    return "".join(f"{line}\n" for line in lines)


def other_text(path: str | Path) -> str:
    """A file that goes in as it is. Raises: UserError if it has another name or header."""
    if Path(path).name not in OTHERS:
        raise UserError(
            f"{path}: expects one of {', '.join(OTHERS)}; the other files are made of results"
        )
    text = read_text(path)
    found = text.partition("\n")[0].rstrip("\r")
    if found != HEADER:
        raise UserError(
            f"{path}:1: expects the header 'index<tab>prediction', found {found[:60]!r}; take it"
            " from the site's sample submission"
        )
    return text if text.endswith("\n") else text + "\n"
