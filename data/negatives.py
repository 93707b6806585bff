"""What does not fit an image, for image-text matching: other captions, other objects, other
answers.

Three files of one folder (``ofa negatives build`` makes them)::

    all_captions.txt   one caption per line; read by line, so that it may be larger than memory
    object.txt         one name of an object per line
    type2ans.json      {"how many": ["1", "2", ...], "color": [...], "other": [...]}
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from random import Random

from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.io.json_files import read_json
from ofa.io.text_files import read_lines
from ofa.io.values import RowError, finding, text_of

FILES = CAPTIONS, OBJECTS, ANSWERS = "all_captions.txt", "object.txt", "type2ans.json"
OTHER, YES_NO = "other", "yes or no"
COUNTS = "how many"  # kind of answers whose neighbors are wrong answers too
SWAPPED = 0.6  # an object of the caption is exchanged where the draw is above
TRIES = 10  # draws until something differs from what fits
REMEDY = (
    "make them by 'ofa negatives build', or leave image-text matching out: --task-weights"
    " image_text_matching=0"
)


def complete_folder(folder: str | Path | None) -> Path:
    """The folder. Raises: UserError if there is none, or a file of it is missing."""
    missing = [name for name in FILES if folder is None or not (Path(folder) / name).is_file()]
    if folder is None or missing:
        raise UserError(
            f"{folder or '--neg-sample-dir'}: expects the folder of {', '.join(FILES)},"
            f" {' and '.join(missing)} is missing; {REMEDY}"
        )
    return Path(folder)


class NegativeSampler:
    """Draws are those of upstream (tests/parity/test_unify_samples.py), but what fits is never
    returned as if it did not. Args: folder: of the three files. Raises: UserError if one is missing
    or holds something else."""

    def __init__(self, folder: str | Path | None):
        self.folder = complete_folder(folder)
        self.path = self.folder / ANSWERS
        self.objects = [line.strip() for line in read_lines(self.folder / OBJECTS) if line.strip()]
        self.answers = read_answers(self.path)
        named = {kind: answers for kind, answers in self.answers.items() if kind != OTHER}
        self.kinds = {answer: kind for kind, answers in named.items() for answer in answers}

    @functools.cached_property
    def captions(self) -> TsvFile:
        """Opened when the first is drawn."""
        return TsvFile(self.folder / CAPTIONS)

    def caption(self, caption: str, objects: Sequence[str], rng: Random) -> str:
        """The caption with another object, or a caption of another image."""
        if rng.random() > SWAPPED and objects and self.objects:
            shown = rng.choice(objects)
            other = drawn(self.objects, shown, rng)
            # upstream says "does not fit" to the caption itself where the object is not in it
            if shown in caption and other != shown:
                return caption.replace(shown, other)
        for _ in range(TRIES):
            other = " ".join(rng.choice(self.captions))
            if other != caption:
                break
        return other

    def answer(self, answer: str, confidence: float, rng: Random) -> str:
        """An answer of the same kind where the answer is sure and its kind is known; else any
        other answer."""
        chance = rng.random()
        kind = self.kinds.get(answer) if confidence > chance + 0.1 else None
        if kind == COUNTS and answer.isdecimal() and len(answer) < 19 and chance > 0.5:
            return str(int(answer) + rng.choice((-1, 1))) if int(answer) else "1"
        answers = self.answers.get(kind or OTHER)
        if not answers:
            raise UserError(
                f"{self.path}: expects answers of the kind {OTHER!r} to draw wrong ones from, found"
                f" none; {REMEDY}"
            )
        return drawn(answers, answer, rng)


def drawn(names: Sequence[str], besides: str, rng: Random) -> str:
    """One of several names, as upstream the last only in place of ``besides``."""
    other = rng.choice(names[:-1] or names)
    return names[-1] if other == besides else other


def read_answers(path: Path) -> dict[str, list[str]]:
    """Raises: UserError if the file is no JSON of lists of texts."""
    expected = f'JSON such as {{"color": ["red", "blue"], "{OTHER}": ["yes"]}}'
    answers: dict[str, list[str]] = {}
    try:
        for kind, given in read_json(path, expected, kind=dict).items():
            if not isinstance(given, list):
                raise RowError(f"{expected}, found {finding(given)}")
            answers[kind] = [text_of(answer, "an answer", "answer") for answer in given]
    except RowError as error:
        raise UserError(f"{path}: expects {error}; {REMEDY}") from None
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from None
    return answers
