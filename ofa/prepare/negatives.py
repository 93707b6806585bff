"""The files that wrong examples of pretraining are drawn from (``ofa.data.negatives``), collected
from the training rows.

The kind of a question is how it begins; an answer belongs to the kind that it answers most often.
Kinds of a single answer have no wrong one to offer: their answers go to ``other``.
"""

import hashlib
import itertools
import logging
import os
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa.data.negatives import ANSWERS, CAPTIONS, OBJECTS, OTHER, YES_NO
from ofa.data.rows import Rows, open_rows
from ofa.errors import UserError
from ofa.io.atomic import names_file, replacing
from ofa.io.flags import action, option
from ofa.io.folder_lock import lock_folder
from ofa.io.image_files import file_state
from ofa.io.json_files import load_json
from ofa.io.paths import path_below
from ofa.io.progress import counted
from ofa.io.terminal import with_noun
from ofa.task.results import write_json
from ofa.task.text import JOIN, clean_question, kind_of_pair, learned_answer, split_objects

logger = logging.getLogger(__name__)

PAIR_COLUMNS = ("caption", "question", "answers", "objects", "dataset", "type")  # from 2 on
PAIR_TYPES = ("caption", "qa", "visual_grounding")  # of rows of images and texts
CLOSED = frozenset(
    "is are was were am do does did has have had can could will would should may must isn't aren't "
    "doesn't don't".split()
)
FILES = {CAPTIONS: "captions", OBJECTS: "objects in captions", ANSWERS: "answers"}
DONE = "negative_samples.json"  # what the files were made from


def question_kind(question: str) -> str:
    """``"How many dogs are there?"`` -> ``"how many"``; ``"Is it red?"`` -> ``"yes or no"``."""
    words = clean_question(question).rstrip(" ?").split()[:2]
    return YES_NO if CLOSED.intersection(words[:1]) else " ".join(words) or OTHER


class NegativeSamples:
    """Collects captions, objects and answers row by row; a context manager, for captions wait in a
    temporary file. Args: folder: where it is; None: where the system has them."""

    def __init__(self, folder: str | Path | None = None):
        self.objects: set[str] = set()
        self.answers: defaultdict[str, Counter] = defaultdict(Counter)  # kind -> counts
        self._captions = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=folder)
        # 64 bits of every caption: 8 bytes of memory each, however long it is
        self._digests = array("Q")

    def __enter__(self) -> "NegativeSamples":
        return self

    def __exit__(self, *error: object) -> None:
        self._captions.close()

    def add_pair(self, row: Mapping[str, str], where: str = "") -> None:
        """A row of an image and texts. Args: row: ``caption question answers objects type``. where:
        ``file:row``. Raises: UserError for an unknown type, or answers that break the grammar."""
        kind = kind_of_pair(row["type"])
        if kind not in PAIR_TYPES:
            raise UserError(
                f"{where}: expected one of the types {', '.join(PAIR_TYPES)}, found"
                f" {row['type'][:40]!r}; check the order of the columns (--selected-cols), or run:"
                " ofa doctor FILE --task vision_language"
            )
        self.objects.update(split_objects(row["objects"]))
        if kind == "caption":
            self.add_caption(row["caption"])
        elif kind == "qa":
            answer = learned_answer(row["answers"], where).strip()
            self.answers[question_kind(row["question"])][answer] += 1

    def add_caption(self, caption: str) -> None:
        text = " ".join(caption.split())  # one line for every program
        if text:
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            self._digests.append(int.from_bytes(digest, "little"))
            self._captions.write(f"{text}\n")

    def add_detections(self, objects: str, where: str = "") -> None:
        """Args: objects: ``x0,y0,x1,y1,category,name&&...``. Raises: UserError for a part
        without a name."""
        for part in filter(None, objects.strip().split(JOIN)):
            fields = part.split(",", 5)
            if len(fields) < 6 or not fields[5].strip():
                raise UserError(
                    f"{where}: expected objects x0,y0,x1,y1,category,name joined by {JOIN}, found"
                    f" {part[:60]!r}; run: ofa doctor FILE --task detection"
                )
            self.objects.add(" ".join(fields[5].split()))

    def captions(self) -> Iterator[str]:
        """Every caption once, in the order of their first rows, as lines."""
        _, first = np.unique(np.frombuffer(self._digests, dtype=np.uint64), return_index=True)
        is_first = np.isin(np.arange(len(self._digests)), first, assume_unique=True)
        self._captions.seek(0)
        return itertools.compress(self._captions, is_first)

    def answers_by_kind(self) -> dict[str, list[str]]:
        """By the alphabet, ``other`` last; the answers of each kind by how often they are given."""
        total = sum(self.answers.values(), Counter())
        by_count = sorted(total, key=lambda answer: (-total[answer], answer))
        kind_of: dict[str, tuple[int, str]] = {}
        for kind in sorted(self.answers, reverse=True):
            for answer, count in self.answers[kind].items():
                if count > kind_of.get(answer, (0, ""))[0]:
                    kind_of[answer] = count, kind
        lists: dict[str, list[str]] = {}
        for answer in by_count:
            lists.setdefault(kind_of[answer][1], []).append(answer)
        lists.pop(OTHER, None)
        known = {kind: lists[kind] for kind in sorted(lists) if len(lists[kind]) > 1}
        settled = set().union(*known.values())
        rest = [answer for answer in by_count if answer not in settled]
        # whoever draws from it needs another answer than the right one
        return {**known, OTHER: rest if len(rest) > 1 else by_count}

    def write(self, folder: Path) -> dict[str, int]:
        """The three files, each of which appears whole. Returns: file name -> number of entries."""
        counts, kinds = {}, self.answers_by_kind()
        names = (f"{name}\n" for name in sorted(self.objects))
        for name, lines in ((CAPTIONS, self.captions()), (OBJECTS, names)):
            with replacing(folder / name) as file:
                counts[name] = 0
                for line in lines:
                    file.write(line)
                    counts[name] += 1
        write_json(folder / ANSWERS, kinds, indent=1)
        counts[ANSWERS] = len(set().union(*kinds.values()))
        for name, purpose in FILES.items():
            if counts[name] < 2:
                message = "%s: %d entries, too few to draw wrong %s from"
                logger.warning(message, folder / name, counts[name], purpose)
        return counts


@dataclass(frozen=True, kw_only=True)
class NegativesOptions:
    data: tuple[str, ...] = option(help="image-text rows: vision_language_examples.tsv, or shards")
    detection: tuple[str, ...] = option((), "rows with objects: detection_examples.tsv, or shards")
    selected_cols: str = option("0,1,2,3,4,5,6,7", "columns of --data")
    detection_selected_cols: str = option("0,1,2", "columns of --detection")
    out: str = option(help="folder to write")


@action
def build(args: NegativesOptions) -> None:
    """Collect captions, objects and answers of training rows.

    Reads the training rows once, without their images, and writes all_captions.txt, object.txt and
    type2ans.json, for --neg-sample-dir. The same rows make the same files. Files that were made
    from the same rows are kept.

    example: ofa negatives build --data vision_language_examples.tsv --detection
    detection_examples.tsv --out negative_sample
    """
    pairs = _open(args.data, args.selected_cols, 8, "--selected-cols")
    columns = args.detection_selected_cols
    objects = _open(args.detection, columns, 3, "--detection-selected-cols")
    made_from = {"data": list(map(_state, pairs)), "detection": list(map(_state, objects))}
    out = Path(args.out)
    ours = _read(out / DONE)
    if all((out / name).is_file() for name in FILES) and ours.get("made_from") == made_from:
        print(f"{out}: already complete")
        return
    with lock_folder(out), names_file(out), NegativeSamples(out) as found:
        if not ours:
            keep_files_of_others(out)
        (out / DONE).unlink(missing_ok=True)
        for texts, where in _texts(pairs):
            found.add_pair(dict(zip(PAIR_COLUMNS, texts)), where)
        for (text,), where in _texts(objects):
            found.add_detections(text, where)
        counts = found.write(out)
        write_json(out / DONE, {"made_from": made_from, "entries": counts}, indent=1)
    nouns = {CAPTIONS: "caption", OBJECTS: "object", ANSWERS: "answer"}
    print(f"{out}: {', '.join(with_noun(counts[file], noun) for file, noun in nouns.items())}")


def keep_files_of_others(folder: Path) -> None:
    """Rename files that are not known to be ours, such as upstream's, to ``NAME.old``."""
    for name in FILES:
        path, old = path_below(folder, name), path_below(folder, f"{name}.old")
        if path.exists() and not old.exists():
            logger.warning("%s: not made by ofa negatives build, kept as %s", path, old.name)
            os.replace(path, old)


def _open(paths: Sequence[str], columns: str, expected: int, flag: str) -> list[Rows]:
    files = [open_rows(path, columns) for path in paths]
    if files and len(files[0].selected_cols) != expected:
        found = len(files[0].selected_cols)
        raise UserError(f"{flag}={columns}: expects {expected} columns, found {found}")
    return files


def _texts(files: Sequence[Rows]) -> Iterator[tuple[list[str], str]]:
    """(texts without id and image, ``file:row``) of every row, with progress."""
    for file in files:
        for row in counted(range(len(file)), len(file), file.path, "rows"):
            yield file.texts(row, file.selected_cols[2:]), file.where(row)


def _state(file: Rows) -> list:
    """What tells whether the rows are others than before."""
    states = (file_state(os.path.realpath(path)) for path in file.files)
    return [file.selected_cols, *map(list, states)]


def _read(path: Path) -> dict:
    try:
        content = load_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
