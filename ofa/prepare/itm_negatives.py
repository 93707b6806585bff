"""The files that wrong examples of pretraining are drawn from, collected from the training rows.

::

    all_captions.txt   every caption once, a line each: captions of other images
    object.txt         every name of an object once: takes the place of another object in a caption
    type2ans.json      {"how many": ["2", "1", ...], "yes or no": ["yes"], ..., "other": [...]}:
                       answers to questions of the same kind

The kind of a question is how it begins: ``is``, ``does``, ``can``, ... ask for yes or no, all
others go by their first two words (``how many``, ``what color``). An answer belongs to the kind
that it answers most often. Kinds of a single answer have no wrong one to offer: their answers go to
``other``, from which answers of unknown kind are drawn as well.
"""

import hashlib
import json
import logging
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ofa.data.negatives import ANSWERS, CAPTIONS, OBJECTS, OTHER, YES_NO
from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.task.text import JOIN, clean_question, kind_of_pair, learned_answer, split_objects

logger = logging.getLogger(__name__)

PAIR_TYPES = ("caption", "qa", "visual_grounding")  # of rows of images and texts
CLOSED = frozenset(
    "is are was were am do does did has have had can could will would should may must isn't aren't "
    "doesn't don't".split()
)


def question_kind(question: str) -> str:
    """``"How many dogs are there?"`` -> ``"how many"``; ``"Is it red?"`` -> ``"yes or no"``;
    ``other`` without words."""
    words = clean_question(question).rstrip(" ?").split()[:2]
    if words and words[0] in CLOSED:
        return YES_NO
    return " ".join(words) or OTHER


class NegativeSamples:
    """Collects captions, objects and answers row by row; a context manager, for captions wait in a
    temporary file.

    Args: folder: where the temporary file is; None: where the system has them.
    """

    def __init__(self, folder: str | Path | None = None):
        self.objects: set[str] = set()
        self.answers: dict[str, Counter] = {}  # kind -> how often it has which answer
        self._captions = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=folder)
        # 64 bits of every caption: 8 bytes of memory each, however long it is
        self._digests = array("Q")

    def __enter__(self) -> "NegativeSamples":
        return self

    def __exit__(self, *error: object) -> None:
        self._captions.close()

    def add_pair(self, row: Mapping[str, str], where: str = "") -> None:
        """A row of an image and texts.

        Args: row: ``caption question answers objects type``. where: ``file:row`` for messages.
        Raises: UserError for an unknown type, and for answers that break the grammar.
        """
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
            self.answers.setdefault(question_kind(row["question"]), Counter())[answer] += 1

    def add_caption(self, caption: str) -> None:
        # a line each, whatever some programs take for a line break
        text = " ".join(caption.split())
        if text:
            self._digests.append(
                int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            )
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
        """Every caption once, in the order of their first rows."""
        _, first = np.unique(np.frombuffer(self._digests, dtype=np.uint64), return_index=True)
        is_first = np.zeros(len(self._digests), dtype=bool)
        is_first[first] = True
        self._captions.seek(0)
        yield from (line.removesuffix("\n") for line, new in zip(self._captions, is_first) if new)

    def answers_by_kind(self) -> dict[str, list[str]]:
        """Kinds in the order of the alphabet, ``other`` last; the answers of each by how often
        they are given."""
        kind_of: dict[str, tuple[int, str]] = {}
        for kind in sorted(self.answers, reverse=True):
            for answer, count in self.answers[kind].items():
                kind_of[answer] = max(
                    kind_of.get(answer, (0, "")), (count, kind), key=lambda found: found[0]
                )
        total = sum(self.answers.values(), Counter())
        lists: dict[str, list[str]] = {}
        for answer in sorted(total, key=lambda answer: (-total[answer], answer)):
            lists.setdefault(kind_of[answer][1], []).append(answer)
        known = {
            kind: lists[kind] for kind in sorted(lists) if kind != OTHER and len(lists[kind]) > 1
        }
        settled = {answer for answers in known.values() for answer in answers}
        rest = [answer for answer in total if answer not in settled]
        if len(rest) < 2:  # whoever draws from it needs another answer than the right one
            rest = list(total)
        return {**known, OTHER: sorted(rest, key=lambda answer: (-total[answer], answer))}

    def write(self, folder: str | Path) -> dict[str, int]:
        """The three files, each of which appears whole. Returns: file name -> number of entries."""
        counts = {}
        for name, lines in ((CAPTIONS, self.captions()), (OBJECTS, sorted(self.objects))):
            with replacing(Path(folder) / name) as file:
                counts[name] = 0
                for line in lines:
                    file.write(f"{line}\n")
                    counts[name] += 1
        kinds = self.answers_by_kind()
        with replacing(Path(folder) / ANSWERS) as file:
            json.dump(kinds, file, ensure_ascii=False, indent=1)
            file.write("\n")
        counts[ANSWERS] = len(set().union(*kinds.values()))
        for name, purpose in (
            (CAPTIONS, "captions"),
            (OBJECTS, "objects in captions"),
            (ANSWERS, "answers"),
        ):
            if counts[name] < 2:
                logger.warning(
                    "%s: %d entries, too few to draw wrong %s from",
                    Path(folder) / name,
                    counts[name],
                    purpose,
                )
        return counts
