"""VQA v2: questions and annotations with ten answers each, as downloaded -> rows of the question answering files.

    question_id <tab> image_id <tab> What is in the bowl? <tab> 1.0|!+dessert&&0.3|!+pudding <tab> <tab> /9j/4AAQ...
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from ofa.coco_captions import read_json
from ofa.errors import UserError
from ofa.pictures import PictureFolders
from ofa.preparation import IMAGE
from ofa.sources.found import Found, Problems, grouped, one_line, split_at_random
from ofa.text import CONFIDENCE, JOIN

SPLITS = ("train", "val", "test")
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


def read_vqa2(questions: Sequence[str], annotations: Sequence[str], images: PictureFolders, problems: Problems,
              split: str | None = None, val_fraction: float | None = None, seed: int = 1, as_written: bool = False,
              known: Iterable[str] | None = None) -> Found:
    """The files ``vqa_train.tsv``, ``vqa_val.tsv``, ``vqa_test.tsv``.

    Args:
        questions, annotations: files in any order; they are matched by question id.
        split: of all questions; None: as ``data_subtype`` of each question file says (``train2014``).
        val_fraction: divide all questions by picture instead.
        as_written: keep the answers as people typed them instead of ``normal_answer``.
        known: the answer set; in training other answers are left out, and questions that have no other.
    """
    known = None if known is None else set(known)
    answers = _read_answers(annotations, as_written)
    settings = {"split": split, "val_fraction": val_fraction, "seed": seed, "as_written": as_written,
                "answers": None if known is None else len(known)}
    found = Found("vqa2", inputs=[*questions, *annotations], settings=settings)
    rows: list[tuple[str, str, tuple[str, ...]]] = []  # split, picture, columns
    for path in questions:
        record = read_json(path, ("questions",))
        part = split or ("train" if val_fraction else _split_of(path, record))
        rows += _rows_of(path, record, part, answers, images, problems, known, found.counts)
    if answers:
        path, _, _ = next(iter(answers.values()))
        problems.add(f"{path}: expected answers to the questions given, found {len(answers)} of other questions (first: "
                     f"question {next(iter(answers))}); is it the annotation file of another data set or split?")
    problems.settle()
    parts = {name: [row for row in rows if row[0] == name] for name in SPLITS}
    if val_fraction:
        parts = split_at_random(rows, lambda row: row[1], val_fraction, seed)
    for name in (name for name in SPLITS if parts.get(name)):
        found.files[f"vqa_{name}.tsv"] = grouped((path, columns) for _, path, columns in parts[name])
        found.counts[f"{name}_questions"] = len(parts[name])
    return found


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


def _rows_of(path: str, record: dict, part: str, answers: dict, images: PictureFolders, problems: Problems,
             known: set[str] | None, counts: dict[str, int]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Rows of one question file; takes the answers that it uses out of ``answers``."""
    rows = []
    for entry in record["questions"]:
        try:
            number, image_id, question = entry["question_id"], entry["image_id"], one_line(entry["question"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: expected questions with 'question_id', 'image_id' and 'question', found an entry "
                            f"without {error}; is it a VQA question file?") from None
        where = f"{path}: question {number}"
        file, answered_image, scores = answers.pop(number, (None, image_id, {}))
        picture = images.find(*_names(entry, record, image_id))
        if picture is None:
            problems.add(f"{where}: expected a file of image {image_id} below {images}, found none")
        elif not question:
            problems.add(f"{where}: expected a question, found an empty text")
        elif answered_image != image_id:
            problems.add(f"{where}: shows image {image_id}, but its answers in {file} image {answered_image}; "
                         "is it the annotation file of another data set?")
        elif not scores and part != "test":
            problems.add(f"{where}: expected answers in --annotations, found none")
        else:
            kept = scores if known is None or part != "train" else {text: scores[text] for text in scores if text in known}
            counts["answers_left_out"] = counts.get("answers_left_out", 0) + len(scores) - len(kept)
            if scores and not kept:
                counts["questions_left_out"] = counts.get("questions_left_out", 0) + 1
                continue
            rows.append((part, picture, (str(number), str(image_id), question, answer_column(kept) or NO_ANSWER, "", IMAGE)))
    return rows


def _names(entry: dict, record: dict, image_id: int | str) -> list[str]:
    """File names under which the picture may lie: as stated, as in COCO 2014 and as in COCO 2017."""
    subtype = str(entry.get("data_subtype", record.get("data_subtype", "")))
    subtype = "test2015" if subtype.startswith("test") else subtype
    stated = [entry["file_name"]] if "file_name" in entry else []
    if not str(image_id).isdecimal():
        return [*stated, f"{image_id}.jpg", str(image_id)]
    number = f"{int(image_id):012d}.jpg"
    return [*stated, f"{subtype}/COCO_{subtype}_{number}", f"COCO_{subtype}_{number}", number]
