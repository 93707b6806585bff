"""VQA v2: questions and annotations with ten answers each, as downloaded -> rows of the question answering files.

    question_id <tab> image_id <tab> What is in the bowl? <tab> 1.0|!+dessert&&0.3|!+pudding <tab> <tab> /9j/4AAQ...
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ofa.coco_captions import read_json
from ofa.errors import UserError
from ofa.label_file import read_label_file
from ofa.picture_files import PictureFolders
from ofa.preparation import IMAGE
from ofa.sources.found import Found, Problems, grouped, label_text, one_line, split_at_random
from ofa.text import CONFIDENCE, JOIN

SPLITS = ("train", "val", "test")
ANSWER_SET = "trainval_ans2label.json"
NO_ANSWER = f"0.0{CONFIDENCE}no"  # of a test question: the column may not be empty, and the figure 0 scores nothing

NUMBERS = {word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())}
NUMBERS["none"] = "0"
ARTICLES = {"a", "an", "the"}
CONTRACTED = """ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
i'm i've isn't it'd it'll let's ma'am mightn't might've mustn't needn't not've o'clock oughtn't shan't she'd she's should've
shouldn't somebody's someone's something's that'll that's there'd there's they'd they'll they're they've wasn't we've weren't
what'd what'll what're what's when'd when's where'd where's who'd who'll who's why'd why's won't would've wouldn't y'all
you'd you'll you're you've""".split()
APOSTROPHES = {word.replace("'", ""): word for word in CONTRACTED}
MARKS = "".join(mark for mark in string.punctuation if mark not in "'.:$%&*#^|~")
DIGITS_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")


def normal_answer(answer: str) -> str:
    """An answer as the VQA evaluation compares it: ``"The  two dogs."`` -> ``"2 dogs"``.

    Lower case, without articles and punctuation, numbers up to ten as digits, apostrophes where they belong.
    Source: the rules of the VQA challenge's evaluation page.
    """
    text = " ".join(answer.lower().split())
    thousands = DIGITS_COMMA.search(text) is not None
    for mark in MARKS:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        text = text.replace(mark, "" if beside_blank or thousands else " ")
    words = (NUMBERS.get(word, word) for word in FULL_STOP.sub("", text).split())
    return " ".join(APOSTROPHES.get(word, word) for word in words if word not in ARTICLES)


def confidences(answers: Sequence[str]) -> dict[str, float]:
    """Share of people's answers -> the score that answering so earns, highest first.

    An answer counts min(1, others who said it / 3), averaged over leaving each person out once; with ten people
    1, 2, 3 and 4 of a kind earn 0.3, 0.6, 0.9 and 1.0. Source: VQA challenge.
    """
    people = len(answers)
    if people == 1:
        return {answers[0]: 1.0}
    counts = Counter(answers)
    scores = {
        answer: round((count * min(1, (count - 1) / 3) + (people - count) * min(1, count / 3)) / people, 4)
        for answer, count in counts.items()
    }
    return dict(sorted(scores.items(), key=lambda item: (-item[1], -counts[item[0]])))


def answer_column(scores: dict[str, float]) -> str:
    """``{"yes": 1.0, "no": 0.3}`` -> ``"1.0|!+yes&&0.3|!+no"``."""
    return JOIN.join(f"{confidence}{CONFIDENCE}{answer}" for answer, confidence in scores.items())


def clean_answer(answer: str) -> str:
    """One line without the marks that separate answers in the column."""
    text = one_line(answer).replace(CONFIDENCE, " ")
    while JOIN in text:
        text = text.replace(JOIN, "&")
    return text.strip()


@dataclass
class Question:
    """A question on its way to a row. Args: scores: answer -> confidence, highest first."""

    split: str
    picture: str
    columns: tuple[str, str, str]  # question id, image id, text
    scores: dict[str, float]

    def row(self) -> tuple[str, ...]:
        return (*self.columns, answer_column(self.scores) or NO_ANSWER, "", IMAGE)


def read_vqa2(questions: Sequence[str], annotations: Sequence[str], images: PictureFolders, problems: Problems,
              split: str | None = None, val_fraction: float | None = None, seed: int = 1, as_written: bool = False,
              answer_set: str | None = None, min_count: int = 1) -> Found:
    """The files ``vqa_train.tsv``, ``vqa_val.tsv``, ``vqa_test.tsv`` and the answer set ``trainval_ans2label.json``.

    Args:
        questions, annotations: files in any order; they are matched by question id.
        split: of all questions; None: as ``data_subtype`` of each question file says (``train2014``).
        val_fraction: divide all questions by picture instead.
        as_written: keep the answers as people typed them instead of ``normal_answer``.
        answer_set: label file; None: the set is the answers that ``min_count`` training questions teach.
            With a set, or a count above 1, training keeps only its answers, and questions that have one.
    """
    answers = _read_answers(annotations, as_written)
    known = read_label_file(answer_set) if answer_set else None
    settings = {"split": split, "val_fraction": val_fraction, "seed": seed, "as_written": as_written, "min_count": min_count}
    found = Found("vqa2", inputs=[*questions, *annotations, *filter(None, [answer_set])], settings=settings)
    read: list[Question] = []
    asked: set[int | str] = set()
    for path in questions:
        record = read_json(path, ("questions",))
        part = split or ("train" if val_fraction else _split_of(path, record))
        read += _questions_of(path, record, part, answers, images, problems)
        asked.update(entry["question_id"] for entry in record["questions"])
    twice = [number for number, count in Counter(question.columns[0] for question in read).items() if count > 1]
    if twice:
        raise UserError(f"{', '.join(questions)}: expected every question once, found question {twice[0]} again "
                        f"({len(twice)} such questions); is a file given twice?")
    others = [number for number in answers if number not in asked]
    if others:
        problems.add(f"{answers[others[0]][0]}: expected answers to the questions given, found {len(others)} of other questions "
                     f"(first: question {others[0]}); is it the annotation file of another data set or split?")
    problems.settle()
    parts = {name: [question for question in read if question.split == name] for name in SPLITS}
    if val_fraction:
        parts |= split_at_random(read, lambda question: question.picture, val_fraction, seed)
    if parts["train"]:
        labels = known or number_answers((next(iter(question.scores)) for question in parts["train"]), min_count)
        if known or min_count > 1:
            parts["train"] = _with_known_answers(parts["train"], labels, found.counts)
        if not parts["train"]:
            raise UserError(f"{', '.join(annotations)}: no training question has an answer "
                            + (f"of {answer_set}; is it the label file of another data set?" if known
                               else f"that {min_count} questions have; lower --min-answer-count"))
        found.texts[ANSWER_SET] = label_text(labels)
    for name in (name for name in SPLITS if parts[name]):
        found.files[f"vqa_{name}.tsv"] = grouped((question.picture, question.row()) for question in parts[name])
        found.counts[f"{name}_questions"] = len(parts[name])
    return found


def number_answers(taught: Iterable[str], min_count: int = 1) -> dict[str, int]:
    """The answers that come often enough, numbered: frequent ones first, then in the order of the alphabet."""
    counts = Counter(taught)
    frequent = sorted((-count, answer) for answer, count in counts.items() if count >= min_count)
    return {answer: number for number, (_, answer) in enumerate(frequent)}


def _with_known_answers(questions: Sequence[Question], labels: Mapping[str, int], counts: dict[str, int]) -> list[Question]:
    """The questions that have an answer of the set, without their other answers; counts what is left out."""
    kept = []
    counts |= {"answers_left_out": 0, "questions_left_out": 0}
    for question in questions:
        scores = {answer: score for answer, score in question.scores.items() if answer in labels}
        counts["answers_left_out"] += len(question.scores) - len(scores)
        if scores:
            kept.append(replace(question, scores=scores))
        else:
            counts["questions_left_out"] += 1
    return kept


def _split_of(path: str, record: dict) -> str:
    subtype = str(record.get("data_subtype", ""))
    for name in SPLITS:
        if subtype.startswith(name):
            return name
    raise UserError(f"{path}: expected 'data_subtype' train, val or test with a year, found {subtype!r}: an unknown split; "
                    "say which it is with --split")


def _read_answers(paths: Sequence[str], as_written: bool) -> dict[int | str, tuple[str, int | str, dict[str, float]]]:
    """Question id -> file, image id and scored answers."""
    answers = {}
    for path in paths:
        for entry in read_json(path, ("annotations",))["annotations"]:
            try:
                texts = [clean_answer(answer["answer"]) for answer in entry["answers"]]
                texts = [text for text in (texts if as_written else map(normal_answer, texts)) if text]
                answers[entry["question_id"]] = path, entry["image_id"], confidences(texts) if texts else {}
            except (KeyError, TypeError) as error:
                raise UserError(f"{path}: expected annotations with 'question_id', 'image_id' and 'answers', found an entry "
                                f"without {error}; is it a VQA annotation file?") from None
    return answers


def _questions_of(path: str, record: dict, part: str, answers: dict, images: PictureFolders,
                  problems: Problems) -> list[Question]:
    """Questions of one file."""
    questions = []
    for entry in record["questions"]:
        try:
            number, image_id, text = entry["question_id"], entry["image_id"], one_line(entry["question"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: expected questions with 'question_id', 'image_id' and 'question', found an entry "
                            f"without {error}; is it a VQA question file?") from None
        where = f"{path}: question {number}"
        file, answered_image, scores = answers.get(number, (None, image_id, {}))
        picture = images.find(*_names(entry, record, image_id))
        if picture is None:
            problems.add(f"{where}: expected a file of image {image_id} below {images}, found none")
        elif not text:
            problems.add(f"{where}: expected a question, found an empty text")
        elif answered_image != image_id:
            problems.add(f"{where}: shows image {image_id}, but its answers in {file} image {answered_image}; "
                         "is it the annotation file of another data set?")
        elif not scores and part != "test":
            problems.add(f"{where}: expected answers in --annotations, found none")
        else:
            questions.append(Question(part, picture, (str(number), str(image_id), text), scores))
    return questions


def _names(entry: dict, record: dict, image_id: int | str) -> list[str]:
    """File names under which the picture may lie: as stated, as in COCO 2014 and as in COCO 2017."""
    subtype = str(entry.get("data_subtype", record.get("data_subtype", "")))
    subtype = "test2015" if subtype.startswith("test") else subtype
    stated = [entry["file_name"]] if "file_name" in entry else []
    if not (str(image_id).isascii() and str(image_id).isdecimal() and len(str(image_id)) < 19):
        return [*stated, f"{image_id}.jpg", str(image_id)]
    number = f"{int(image_id):012d}.jpg"
    return [*stated, f"{subtype}/COCO_{subtype}_{number}", f"COCO_{subtype}_{number}", number]
