"""Result files -> what the leaderboards take: COCO captions as a zip, VQA answers as one JSON, MUGE
captions as JSON lines.

    coco   zip with captions_val2014_NAME_results.json and captions_test2014_NAME_results.json,
           each [{"image_id": 391895, "caption": "a man on a motorcycle"}, ...]
    vqa    [{"question_id": 393225000, "answer": "red"}, ...]
    muge   {"image_id": "007c72", "text": "蕾丝元素，时尚气质"} in each line

Ids are integers there, but for MUGE; every image or question of the split is answered
exactly once. What our result files hold besides (scores, further answers) is left out.
"""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.json_files import load_json
from ofa.io.numbers import read_integer
from ofa.io.values import RowError, words_of
from ofa.task.results import Entry, read_predictions, write_json

COCO_ID = re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?0*([0-9]{1,18})(?:\.jpg)?")
SHOWN = 5  # ids named in a message


@dataclass(frozen=True)
class UploadFormat:
    """What an upload is made of.

    Args: key, text: names of the two fields in a result file; one: what an id stands for; numbered:
    ids are integers.
    """

    key: str
    text: str
    one: str
    numbered: bool = True


COCO = UploadFormat("image_id", "caption", "image")
VQA = UploadFormat("question_id", "answer", "question")
MUGE = UploadFormat("image_id", "caption", "image", numbered=False)


def coco_upload(
    results: dict[str, str | Path], name: str, out: str | Path, expected: dict[str, set[int]]
) -> dict[str, int]:
    """Write the zip for the COCO caption server.

    Args:
        results: split such as ``val2014`` -> result file of the caption task.
        name: of the method; part of the file names.
        expected: split -> ids of its images, where they are known.
    Returns: captions by split. Raises: UserError; nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9.-]+", name):
        raise UserError(
            f"--name: expects letters, digits, dots and hyphens, found {name!r}; the server reads"
            " file names at '_'"
        )
    content = io.BytesIO()
    counts = {}
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, path in results.items():
            entries = upload_entries([path], COCO, expected.get(split))
            add_member(archive, f"captions_{split}_{name}_results.json", json.dumps(entries))
            counts[split] = len(entries)
    with replacing(out, "wb") as file:
        file.write(content.getvalue())
    return counts


def add_member(archive: zipfile.ZipFile, name: str, content: str | bytes) -> None:
    """A file of a zip, dated 1980: equal files, equal zips."""
    member = zipfile.ZipInfo(name)
    member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(member, content)


def vqa_upload(results: Sequence[str | Path], out: str | Path, expected: set[int] | None) -> int:
    """Write the JSON for the VQA challenge. Args: results: files that make up a split together;
    expected: its question ids, if they are known. Returns: number of answers. Raises: UserError;
    nothing is written then.
    """
    entries = upload_entries(results, VQA, expected)
    write_json(out, entries)
    return len(entries)


def muge_upload(results: Sequence[str | Path], out: str | Path, expected: set[str] | None) -> int:
    """Write the JSON lines for MUGE's captions. Args and returns as ``vqa_upload``; ids are
    texts."""
    entries = upload_entries(results, MUGE, expected)
    with replacing(out) as file:
        for entry in entries:
            line = {"image_id": entry["image_id"], "text": entry["caption"]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(entries)


def upload_entries(
    paths: Iterable[str | Path], form: UploadFormat, expected: set | None = None
) -> list[Entry]:
    """The entries of result files with nothing but an id and a text.

    Raises: UserError if an entry has another form, or an id is not an integer, comes twice, is
    missing or is foreign.
    """
    entries = [entry for path in paths for entry in _converted(path, form)]
    ids = [entry[form.key] for entry in entries]
    files = ", ".join(map(str, paths))
    twice = [number for number, times in Counter(ids).items() if times > 1]
    if twice:
        raise UserError(
            f"{files}: expects every {form.one} once, found {len(twice)} more than once"
            f" ({_some(twice)}); were the results of two splits or two runs put together, or has"
            " the TSV rows twice?"
        )
    if expected is not None:
        missing, foreign = expected - set(ids), set(ids) - expected
        if missing or foreign:
            findings = [f"{len(missing)} missing ({_some(missing)})"] * bool(missing)
            findings += [f"{len(foreign)} of another split ({_some(foreign)})"] * bool(foreign)
            raise UserError(
                f"{files}: expects one {form.text} for each of {len(expected)} {form.one}s, found"
                f" {' and '.join(findings)}; evaluate the whole split, and give the list of the"
                " same split"
            )
    return entries


def _converted(path: str | Path, form: UploadFormat) -> list[Entry]:
    converted = []
    for number, entry in enumerate(read_predictions(path), start=1):
        if (
            not isinstance(entry, dict)
            or form.key not in entry
            or not isinstance(entry.get(form.text), str)
        ):
            found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)[:60]
            raise UserError(
                f"{path}: entry {number}: expects '{form.key}' and '{form.text}', found {found}; is"
                " it the result file of another task?"
            )
        where = f"{path}: entry {number}"
        row_id = (
            _number(entry[form.key], where, form)
            if form.numbered
            else _text(entry[form.key], where, form)
        )
        converted.append({form.key: row_id, form.text: entry[form.text]})
    return converted


def _text(value: Any, where: str, form: UploadFormat) -> str:
    try:
        return words_of(value, f"the id of a {form.one} as '{form.key}'")
    except RowError as error:
        raise UserError(
            f"{where}: expects {error}; evaluate a TSV with an id in every row"
        ) from None


def _number(value: Any, where: str, form: UploadFormat) -> int:
    """``391895``, ``"391895"`` or ``"COCO_val2014_000000391895.jpg"`` -> 391895."""
    match = COCO_ID.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        raise UserError(
            f"{where}: expects the number of a {form.one} as '{form.key}', found {value!r};"
            " evaluate a TSV whose id column holds the data set's own numbers"
        )
    return int(match[1])


def _some(numbers: Iterable) -> str:
    first = sorted(numbers)[: SHOWN + 1]
    return ", ".join(map(str, first[:SHOWN])) + (", ..." if len(first) > SHOWN else "")


def listed_ids(path: str | Path, group: str, key: str) -> set[int]:
    """Ids of a file of the data set: ``{"questions": [{"question_id": 1}, ...]}`` or ``{"images":
    [{"id": 1}, ...]}``.

    Args: group, key: ``questions`` and ``question_id``, or ``images`` and ``id``.
    Raises: UserError if the file is missing or of another kind.
    """
    try:
        content = load_json(Path(path).read_text(encoding="utf-8"))
        return {read_integer(entry[key]) for entry in content[group]}
    except OSError as error:
        finding = error.strerror
    except (ValueError, KeyError, TypeError) as error:
        finding = f"{type(error).__name__}: {error}"
    raise UserError(
        f"{path}: expects a file of the data set with '{group}' that have a '{key}' each, found"
        f" {finding}; give the original JSON"
    )
