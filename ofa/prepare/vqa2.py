"""VQA v2: questions and annotations with ten answers each, as downloaded -> rows of the question
answering files.

question_id <tab> image_id <tab> What is in the bowl? <tab> 1.0|!+dessert&&0.3|!+pudding <tab> <tab>
/9j/4AAQ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ofa.errors import UserError
from ofa.io.image_files import ImageFolders
from ofa.io.values import Ids, RowError, finding, id_key, one_line, text_of, words_of
from ofa.prepare.answer_column import (
    answer_column,
    answer_of,
    confidences,
    normal_answer,
    number_answers,
)
from ofa.prepare.coco_captions import read_json
from ofa.prepare.prepared_dataset import (
    PreparedDataset,
    Problems,
    entries_of,
    grouped,
    label_text,
    read_prefixes,
    split_at_random,
)
from ofa.prepare.tsv_writer import IMAGE
from ofa.task.label_file import read_label_file
from ofa.task.text import CONFIDENCE

SPLITS = ("train", "val", "test")
ANSWER_SET = "trainval_ans2label.json"
NO_ANSWER = (  # of a test question: the column may not be empty, and the figure 0 scores nothing
    f"0.0{CONFIDENCE}no"
)


@dataclass
class Question:
    """A question on its way to a row. Args: scores: answer -> confidence, highest first."""

    split: str
    image: str
    columns: tuple[str, str, str]  # question id, image id, text
    scores: dict[str, float]

    def row(self) -> tuple[str, ...]:
        return (*self.columns, answer_column(self.scores) or NO_ANSWER, "", IMAGE)


@dataclass(frozen=True)
class Answered:
    """Annotation of a question. Args: file: of it. scores: answer -> confidence, highest first."""

    file: str
    question_id: str
    image_id: str
    scores: dict[str, float]


def read_vqa2(
    questions: Sequence[str],
    annotations: Sequence[str],
    images: ImageFolders,
    problems: Problems,
    split: str | None = None,
    val_fraction: float | None = None,
    seed: int = 1,
    as_written: bool = False,
    answer_set: str | None = None,
    min_count: int = 1,
    id_prefix: Sequence[str] | None = None,
) -> PreparedDataset:
    """The files ``vqa_train.tsv``, ``vqa_val.tsv``, ``vqa_test.tsv`` and the answer set
    ``trainval_ans2label.json``.

    Args:
        questions, annotations: files in any order; they are matched by question id.
        split: of all questions; None: as ``data_subtype`` of each question file says
            (``train2014``).
        val_fraction: divide all questions by image instead.
        as_written: keep the answers as people typed them instead of ``normal_answer``.
        answer_set: label file; None: the set is the answers that ``min_count`` training questions
            teach. With a set, or a count above 1, training keeps only its answers, and questions
            that have one.
        id_prefix: before the ids of each question file and the annotation file at its place, see
            ``read_prefixes``.
    """
    prefixes = read_prefixes(id_prefix, questions)
    if len(annotations) > len(prefixes) and id_prefix is not None:
        raise UserError(
            f"--id-prefix: expected an annotation file for each of {len(questions)} question files"
            f" at most, found {len(annotations)}; name question files and their annotations in one"
            " order"
        )
    prefixes += [""] * (len(annotations) - len(prefixes))
    answers = _read_answers(annotations, prefixes, as_written, problems)
    known = read_label_file(answer_set) if answer_set else None
    settings = {
        "split": split,
        "val_fraction": val_fraction,
        "seed": seed,
        "as_written": as_written,
        "min_count": min_count,
    }
    found = PreparedDataset(
        "vqa2", inputs=[*questions, *annotations, *filter(None, [answer_set])], settings=settings
    )
    read: list[Question] = []
    ids = Ids("question")
    for path, prefix in zip(questions, prefixes):
        record = read_json(path, ("questions",))
        part = split or ("train" if val_fraction else _split_of(path, record))
        read += _questions_of(path, prefix, record, part, answers, images, problems, ids)
    others = [answered for key, answered in answers.items() if key not in ids.first]
    if others:
        problems.add(
            f"{others[0].file}: expected answers to the questions given, found {len(others)} of"
            f" other questions (first: question {others[0].question_id}); is it the annotation file"
            " of another data set or split?"
        )
    found.counts |= problems.counts()
    problems.settle()
    parts = {name: [question for question in read if question.split == name] for name in SPLITS}
    if val_fraction:
        parts |= split_at_random(read, lambda question: question.image, val_fraction, seed)
    if parts["train"]:
        labels = known or number_answers(
            (next(iter(question.scores)) for question in parts["train"]), min_count
        )
        if known or min_count > 1:
            parts["train"] = _with_known_answers(parts["train"], labels, found.counts)
        if not parts["train"]:
            raise UserError(
                f"{', '.join(annotations)}: no training question has an answer "
                + (
                    f"of {answer_set}; is it the label file of another data set?"
                    if known
                    else f"that {min_count} questions have; lower --min-answer-count"
                )
            )
        found.texts[ANSWER_SET] = label_text(labels)
    for name in (name for name in SPLITS if parts[name]):
        found.files[f"vqa_{name}.tsv"] = grouped(
            (question.image, question.row()) for question in parts[name]
        )
        found.counts[f"{name}_questions"] = len(parts[name])
    return found


def _with_known_answers(
    questions: Sequence[Question], labels: Mapping[str, int], counts: dict[str, int]
) -> list[Question]:
    """The questions that have an answer of the set, without their other answers; counts what is
    left out."""
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
    raise UserError(
        f"{path}: expected 'data_subtype' train, val or test with a year, found {subtype!r}: an"
        " unknown split; say which it is with --split"
    )


def _read_answers(
    paths: Sequence[str], prefixes: Sequence[str], as_written: bool, problems: Problems
) -> dict[str, Answered]:
    """Question id (``id_key``) -> what its annotation says."""
    answers: dict[str, Answered] = {}
    ids = Ids("annotated question")
    for path, prefix in zip(paths, prefixes):
        for number, entry in enumerate(
            entries_of(read_json(path, ("annotations",)), "annotations", path)
        ):
            missing = [key for key in ("question_id", "image_id", "answers") if key not in entry]
            if missing:
                raise UserError(
                    f"{path}: expected annotations with 'question_id', 'image_id' and 'answers',"
                    f" found an entry without {missing[0]!r}; is it a VQA annotation file?"
                )
            where = f"{path}: annotation {number}"
            try:
                question_id, image_id = (
                    words_of(entry["question_id"], "a question_id"),
                    words_of(entry["image_id"], "an image_id"),
                )
                where = f"{path}: question {question_id}"
                texts = _texts(entry["answers"])
            except RowError as error:
                problems.add(f"{where}: expected {error}")
                continue
            ids.add(question_id, f"{path}: annotation {number}", prefix)
            texts = texts if as_written else list(map(normal_answer, texts))
            answers[prefix + id_key(question_id)] = Answered(
                path, question_id, image_id, confidences(texts) if texts else {}
            )
    return answers


def _texts(answers: object) -> list[str]:
    """What people said; an empty text is no answer. Raises: RowError for what is no list of
    answers."""
    if not isinstance(answers, list):
        raise RowError(f"a list of answers, found {finding(answers)}")
    texts = [answer for answer in answers if one_line(text_of(answer, "an answer", "answer"))]
    return list(map(answer_of, texts))


def _questions_of(
    path: str,
    prefix: str,
    record: dict,
    part: str,
    answers: Mapping[str, Answered],
    images: ImageFolders,
    problems: Problems,
    ids: Ids,
) -> list[Question]:
    """Questions of one file."""
    questions = []
    for number, entry in enumerate(entries_of(record, "questions", path)):
        missing = [key for key in ("question_id", "image_id", "question") if key not in entry]
        if missing:
            raise UserError(
                f"{path}: expected questions with 'question_id', 'image_id' and 'question', found"
                f" an entry without {missing[0]!r}; is it a VQA question file?"
            )
        where = f"{path}: question number {number}"
        try:
            question_id, image_id = (
                words_of(entry["question_id"], "a question_id"),
                words_of(entry["image_id"], "an image_id"),
            )
            where = f"{path}: question {question_id}"
            ids.add(question_id, f"{path}: question number {number}", prefix)
            text, names = (
                words_of(entry["question"], "a question", "question"),
                _names(entry, record, image_id),
            )
        except RowError as error:
            problems.add(f"{where}: expected {error}")
            continue
        answered = answers.get(
            prefix + id_key(question_id), Answered("", question_id, image_id, {})
        )
        image = images.find(*names)
        if image is None:
            problems.add(f"{where}: expected a file of image {image_id} below {images}, found none")
        elif id_key(answered.image_id) != id_key(image_id):
            problems.add(
                f"{where}: shows image {image_id}, but its answers in {answered.file} image"
                f" {answered.image_id}; is it the annotation file of another data set?"
            )
        elif not answered.scores and part != "test":
            problems.add(f"{where}: expected answers in --annotations, found none")
        else:
            questions.append(
                Question(
                    part, image, (prefix + question_id, prefix + image_id, text), answered.scores
                )
            )
    return questions


def _names(entry: dict, record: dict, image_id: str) -> list[str]:
    """File names under which the image may lie: as stated, as in COCO 2014 and as in COCO
    2017. Raises: RowError."""
    subtype = str(entry.get("data_subtype", record.get("data_subtype", "")))
    subtype = "test2015" if subtype.startswith("test") else subtype
    stated = [words_of(entry["file_name"], "a file_name")] if "file_name" in entry else []
    if not (
        id_key(image_id).isascii() and id_key(image_id).isdecimal() and len(id_key(image_id)) < 19
    ):
        return [*stated, f"{image_id}.jpg", image_id]
    number = f"{int(id_key(image_id)):012d}.jpg"
    return [*stated, f"{subtype}/COCO_{subtype}_{number}", f"COCO_{subtype}_{number}", number]
