"""The answers a task may give: label files such as ``trainval_ans2label.pkl`` (``{text: number}``,
as pickle or JSON), the options that name them, their tokens, and the trie of them."""

import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.flags import option
from ofa.io.json_files import load_json, read_plain
from ofa.task.prediction import BatchRow
from ofa.task.task_spec import Decoding, TaskOptions

# files that ofa prepare writes beside the rows: answers of questions, classes
ANSWER_SET, CLASS_SET = "trainval_ans2label.json", "class2label.json"
EXPECTED = "a label file {text: number}"
LISTED = 30  # missing answers that a message names
INFERENCE_TYPES = ("allcand", "beamsearch")
PROMPT_TYPES = ("none", "src", "prev_output")


def read_label_file(path: str | Path) -> dict[str, int]:
    """The texts and their numbers. Raises: UserError if the file is missing, damaged or holds
    anything else."""
    content = read_plain(path, EXPECTED)
    labels = content.items() if isinstance(content, dict) else ()
    if not labels or not all(isinstance(a, str) and isinstance(b, int) for a, b in labels):
        found = f"another {type(content).__name__}"
        raise UserError(f"{path}: expected {EXPECTED}, found {found}; is it the file?")
    return content


def write_label_file(path: str | Path, texts: Sequence[str]) -> None:
    """Number the texts from 0 and write them: a pickle if the name ends so, else JSON."""
    labels = {text: number for number, text in enumerate(texts)}
    with replacing(path, "wb") as file:
        if Path(path).suffix in (".pkl", ".p"):
            pickle.dump(labels, file)
        else:
            file.write(json.dumps(labels, ensure_ascii=False).encode())


def differing_in_case(texts: Iterable[str]) -> list[list[str]]:
    """Texts that are alike but for capitals, in the order in which they come."""
    alike: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        alike.setdefault(text.lower(), []).append(text)
    return [some for some in alike.values() if len(some) > 1]


def counts_in_words(counts: Counter[str]) -> str:
    """``23 classes, from 1 row ('rose') to 17 rows ('lily')``."""
    ranked = counts.most_common()
    (most, high), (least, low) = ranked[0], ranked[-1]
    classes = f"{len(counts)} classes" if len(counts) > 1 else "one class"
    if low == high:
        return f"{classes}, {high} row{'s' * (high > 1)} each"
    return f"{classes}, from {low} row{'s' * (low > 1)} ({least!r}) to {high} rows ({most!r})"


def answers_option(default: Optional[str]) -> Any:
    """The field ``ans2label_dict`` with another default."""
    return option(default, "the answers as JSON, {text: number}; --ans2label-file goes before it")


def prompt_type_option(default: str) -> Any:
    return option(
        default,
        "given to the decoder: nothing, the source, or the source without its end",
        choices=PROMPT_TYPES,
    )


@dataclass
class LabelOptions(TaskOptions):
    """Options of a task whose answers come from a set."""

    ans2label_dict: Optional[str] = answers_option(None)
    ans2label_file: Optional[str] = option(None, "file of the answers, see ofa answers build")


@dataclass
class AnswerOptions(LabelOptions):
    """The same where answers are ranked or generated."""

    valid_batch_size: int = option(20, "answers that are scored together; fewer need less memory")
    val_inference_type: str = option(
        "allcand",
        "allcand: score every answer of the set; beamsearch: search along their trie",
        choices=INFERENCE_TYPES,
        const={"--beam-search-vqa-eval": "beamsearch"},
    )
    eval_args: Optional[str] = option(
        '{"beam":5,"unnormalized":true,"temperature":1.0}',
        "generation options for --val-inference-type=beamsearch, as JSON",
    )
    eval_print_samples: bool = option(False, "log one answer per validation batch")

    def __post_init__(self):
        super().__post_init__()
        if (size := self.valid_batch_size) < 1:
            raise UserError(f"--valid-batch-size: expected at least 1, found {size}")


@dataclass
class PromptedAnswerOptions(AnswerOptions):
    """The same for a task whose decoder may be given the question before it answers."""

    prompt_type: str = prompt_type_option("prev_output")


def ranks_all(options: AnswerOptions, zero_shot: bool, **how: Any) -> Decoding:
    return Decoding(rank=options.val_inference_type == "allcand", zero_shot=zero_shot, **how)


def answer_texts(options: LabelOptions) -> list[str]:
    """The answers that the options name, in the order of the file or dictionary. Raises: UserError
    if there are none, or the file or JSON cannot be read."""
    if options.ans2label_file:
        return list(read_label_file(options.ans2label_file))
    text = options.ans2label_dict or "{}"
    expected = f'--ans2label-dict: expected JSON such as \'{{"no":0,"yes":1}}\', found {text!r}'
    try:
        labels = load_json(text)
    except ValueError as error:
        raise UserError(f"{expected} ({error})") from None
    if not isinstance(labels, dict) or not labels:
        remedy = "give the answers by --ans2label-file (ofa answers build makes one)"
        raise UserError(f"{expected}; {remedy}")
    return list(labels)


def source_of(options: LabelOptions) -> str:
    return options.ans2label_file or "--ans2label-dict"


def accepted_answers(row: BatchRow) -> list[str]:
    accepted = row.ref_dict or {}
    return sorted(accepted, key=accepted.__getitem__, reverse=True) or [row.target.strip()]


class AnswerSet:
    """Answers in their order, encoded with a leading space as targets are: ``" on the table"``.

    Args: texts: none twice. encode: text -> token ids. bos, eos: around every path of the trie.
    Raises: UserError if there is none, or one without tokens.
    """

    def __init__(
        self, texts: Sequence[str], encode: Callable[[str], list[int]], bos: int = 0, eos: int = 2
    ):
        self.texts = list(texts)
        self.tokens = [encode(" " + text) for text in self.texts]  # without start and end
        self.bos, self.eos = bos, eos
        empty = [text for text, tokens in zip(self.texts, self.tokens) if not tokens]
        if empty or not self.texts:
            finding = f"{empty[0]!r}; remove it" if empty else "no answer at all"
            expected = "answers with at least one token"
            raise UserError(f"answer set: expected {expected}, found {finding}")
        from ofa.tokens.trie import Trie  # imports torch, which options do without

        self.trie = Trie(eos, ([bos, *tokens, eos] for tokens in self.tokens))
        self._lengths = {text: len(tokens) for text, tokens in zip(self.texts, self.tokens)}

    def __len__(self) -> int:
        return len(self.texts)

    def length_of(self, text: str) -> Optional[int]:
        """Number of tokens; None if it is not in the set."""
        return self._lengths.get(text)

    def allowed_after(self, tokens: Sequence[int]) -> list[int]:
        """Tokens that may follow the beginning of an answer; the end alone after any other."""
        return self.trie.get_next_layer([self.bos, *tokens])


class MissingAnswers:
    """Answers of rows that cannot be learned, counted: those outside a set, and those that would be
    cut. Args: length_of: answer -> its tokens; None: it is not in the set."""

    def __init__(self, length_of: Callable[[str], Optional[int]]):
        self.length_of, self.rows = length_of, 0
        self.cut: set[str] = set()  # in the set, but too long
        self.counts: Counter[str] = Counter()
        self.places: dict[str, str] = {}

    def look_at(self, answer: str, where: str, longest: Optional[int] = None) -> None:
        """Args: where: ``file:row``. longest: tokens to which targets are cut."""
        self.rows += 1
        length = self.length_of(answer)
        if length is not None and (longest is None or length <= longest):
            return
        self.cut |= set() if length is None else {answer}
        self.counts[answer] += 1
        self.note_place(answer, where)

    def note_place(self, answer: str, where: str) -> None:
        self.places[answer] = min(where, self.places.get(answer, where), key=row_number)

    def merge(self, others: Iterable["MissingAnswers"]) -> None:
        for other in others:
            self.rows += other.rows
            self.cut |= other.cut
            self.counts.update(other.counts)
            for place in other.places.items():
                self.note_place(*place)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def lines(self, limit: Optional[int] = None) -> list[str]:
        """``'a blue car' (too long): 3 rows, first data.tsv:17``, the most frequent first."""

        def rank(answer: str) -> tuple:
            return -self.counts[answer], row_number(self.places[answer])

        return [
            f"{answer!r}{' (too long)' * (answer in self.cut)}: {self.counts[answer]}"
            f" row{'s' * (self.counts[answer] > 1)}, first {self.places[answer]}"
            for answer in sorted(self.counts, key=rank)[:limit]
        ]

    def message(self, path: str, size: int, source: str, may_be_free: bool = False) -> str:
        """What is wrong and how to fix it. Args: may_be_free: the task can do without a set."""
        total, expected = self.counts.total(), f"{path}: expected the {size} answers of {source}"
        listed = "\n  ".join(self.lines(LISTED))
        if (more := len(self.counts) - LISTED) > 0:
            listed += f"\n  and {more} other answers (ofa answers check lists all)"
        if total == self.rows:
            return (
                f"{expected}, found none of them in {total} rows, but\n  {listed}\nis it the label"
                " file of another dataset? Give the one of this file by --ans2label-file"
            )
        remedies = [
            f"make a set that has them (ofa answers build {path} --out FILE)",
            "remove these rows",
        ]
        remedies += ["raise --max-tgt-length for those that are too long"] if self.cut else []
        remedies += ["train without a set (--unconstrained-training)"] if may_be_free else []
        found = f"found {total} of {self.rows} rows with others"
        return f"{expected}, {found}\n  {listed}\n{', or '.join(remedies)}"


def row_number(where: str) -> tuple[str, int]:
    path, _, row = where.rpartition(":")
    return path, int(row)
