"""VQA v2: questions and annotations with ten answers each, as downloaded -> rows of the question
answering files, with answers such as ``1.0|!+dessert&&0.3|!+pudding``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.values import Ids, RowError, finding, id_key, one_line, text_of, words_of
from ofa.prepare.annotations import Entry, Problems, find_image, list_of, read_prefixes, read_record
from ofa.prepare.answer_column import (
    answer_column,
    answer_of,
    confidences,
    normal_answer,
    number_answers,
)
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import DivideOptions, ImageOptions, source
from ofa.prepare.table import Filled, TableRow, dataset_of
from ofa.task.answers import read_label_file
from ofa.task.text import CONFIDENCE, learned_answer, parse_answers

ANSWERS = 3  # column of the files
# of a test question: the column may not be empty, and the figure 0 scores nothing
NO_ANSWER = f"0.0{CONFIDENCE}no"
QUESTION_KEYS = ("question_id", "image_id", "question")
ANNOTATION_KEYS = ("question_id", "image_id", "answers")


@dataclass(frozen=True, kw_only=True)
class Vqa2Options(ImageOptions, DivideOptions):
    questions: tuple[str, ...] = option(help="question files, of any splits")
    annotations: tuple[str, ...] = option((), "annotation files; none for test questions")
    split: Literal["train", "val", "test"] | None = option(
        None, "split of all questions, if not as 'data_subtype' tells", exclusive="split"
    )
    answers_as_written: bool = option(False, "keep case, articles and punctuation of answers")
    ans2label_file: str | None = option(
        None, "answer set (.pkl or .json); training keeps only its answers", exclusive="answers"
    )
    min_answer_count: int = option(
        1, "training questions of each answer of the set (9 is usual)", exclusive="answers", least=1
    )


@source(Vqa2Options, "vqa2")
def read_vqa2(options: Vqa2Options, problems: Problems) -> PreparedDataset:
    """A file per split, and the answer set of the training questions.

    Writes vqa_train.tsv, vqa_val.tsv, vqa_test.tsv (of the questions that there are),
    trainval_ans2label.json and manifest.json.

    example: ofa prepare vqa2 --questions v2_OpenEnded_mscoco_*_questions.json --annotations
    v2_mscoco_*_annotations.json --images train2014 val2014 test2015 --out dataset/vqa_data
    """
    rows, counts = read_questions(options, problems), dict[str, int]()
    problems.settle()
    choose = partial(choose_answers, options, counts)
    inputs = [*options.questions, *options.annotations, *filter(None, [options.ans2label_file])]
    found = dataset_of("vqa_gen", rows, problems, options, inputs, "vqa_{}.tsv", choose)
    found.counts |= counts
    return found


def choose_answers(options: Vqa2Options, counts: dict[str, int], rows: Filled) -> Mapping[str, int]:
    """The answer set: that of ``--ans2label-file``, or what ``--min-answer-count`` questions teach.
    With a file, or a count above 1, training keeps only its answers, and questions that have one.
    Args: rows: of training."""
    path, least = options.ans2label_file, options.min_answer_count
    taught = (learned_answer(cells[ANSWERS]) for _, cells in rows)
    labels = read_label_file(path) if path else number_answers(taught, least)
    if not path and least == 1:
        return labels
    counts |= {"answers_left_out": 0, "questions_left_out": 0}
    every, rows[:] = list(rows), []
    for image, cells in every:
        scores = parse_answers(cells[ANSWERS])
        known = {answer: score for answer, score in scores.items() if answer in labels}
        counts["answers_left_out"] += len(scores) - len(known)
        counts["questions_left_out"] += not known
        if known:
            cells[ANSWERS] = answer_column(known)
            rows.append((image, cells))
    if not rows:
        which = f"that {least} questions have; lower --min-answer-count"
        which = f"of {path}; is it the label file of another data set?" if path else which
        raise UserError(
            f"{', '.join(options.annotations)}: no training question has an answer {which}"
        )
    return labels


def read_questions(options: Vqa2Options, problems: Problems) -> list[TableRow]:
    """The questions of all files, with their answers."""
    files, annotations = options.questions, options.annotations
    prefixes = read_prefixes(options.id_prefix, files)
    if len(annotations) > len(prefixes) and options.id_prefix is not None:
        raise UserError(
            f"--id-prefix: expected an annotation file for each of {len(files)} question files at"
            f" most, found {len(annotations)}; name question files and their annotations in one"
            " order"
        )
    prefixes += [""] * (len(annotations) - len(prefixes))
    images, rows = ImageFolders(options.images), []
    answers = read_answers(options, prefixes, problems)
    ids, hint = Ids("question"), "is it a VQA question file?"
    for path, prefix in zip(files, prefixes):
        record = read_record(path, "questions")
        split = options.split or ("train" if options.val_fraction else _split_of(path, record))
        listed = record["questions"]
        for entry in list_of(path, listed, "question", QUESTION_KEYS, hint, "question_id"):
            with problems.at(entry.where):
                question_id = words_of(entry["question_id"], "a question_id")
                image_id = words_of(entry["image_id"], "an image_id")
                ids.add(question_id, entry.where, prefix)
                values = {"id": question_id, "image_id": image_id}
                values["question"] = words_of(entry["question"], "a question", "question")
                image = find_image(images, *_names(entry, record, image_id))
                answered = answers.get(prefix + id_key(question_id))
                values["answer"] = _answers(answered, image_id, split)
                rows.append(TableRow(entry.where, values, split, image, prefix=prefix))
    others = [answered for key, answered in answers.items() if key not in ids.first]
    if others:
        first = others[0]["question_id"]
        problems.add(
            f"{others[0].where}: expected answers to the questions given, found {len(others)} of"
            f" other questions (first: question {first}); is it the annotation file of another"
            " data set or split?"
        )
    return rows


def _answers(answered: Entry | None, image_id: str, split: str) -> str:
    """The column of a question, which only a test question may be without."""
    if answered and id_key(answered["image_id"]) != id_key(image_id):
        raise RowError(
            f"answers about its image {image_id}, found those in {answered.where} about image"
            f" {answered['image_id']}; is it the annotation file of another data set?"
        )
    if not (answered and answered["answers"]) and split != "test":
        raise RowError("answers in --annotations, found none")
    return (answered and answered["answers"]) or NO_ANSWER


def _split_of(path: str, record: Mapping[str, Any]) -> str:
    subtype = str(record.get("data_subtype", ""))
    for name in ("train", "val", "test"):
        if subtype.startswith(name):
            return name
    raise UserError(
        f"{path}: expected 'data_subtype' train, val or test with a year, found {subtype!r}: an"
        " unknown split; say which it is with --split"
    )


def read_answers(
    options: Vqa2Options, prefixes: Sequence[str], problems: Problems
) -> dict[str, Entry]:
    """Question id (``id_key``) -> its annotation, with the column of the answers; its file."""
    answers: dict[str, Entry] = {}
    ids, hint = Ids("annotated question"), "is it a VQA annotation file?"
    for path, prefix in zip(options.annotations, prefixes):
        listed = read_record(path, "annotations")["annotations"]
        for entry in list_of(path, listed, "annotation", ANNOTATION_KEYS, hint, "question_id"):
            with problems.at(entry.where):
                question_id = words_of(entry["question_id"], "a question_id")
                image_id = words_of(entry["image_id"], "an image_id")
                if not isinstance(entry["answers"], list):
                    raise RowError(f"a list of answers, found {finding(entry['answers'])}")
                texts = [  # an empty text is no answer
                    answer_of(answer)
                    for answer in entry["answers"]
                    if one_line(text_of(answer, "an answer", "answer"))
                ]
                ids.add(question_id, entry.where, prefix)
                if not options.answers_as_written:
                    texts = list(map(normal_answer, texts))
                known = {"question_id": question_id, "image_id": image_id}
                known["answers"] = answer_column(confidences(texts))
                answers[prefix + id_key(question_id)] = Entry(known, path)
    return answers


def _names(entry: Mapping[str, Any], record: Mapping[str, Any], image_id: str) -> list[str]:
    """File names of the image: as stated, as in COCO 2014 and as in COCO 2017."""
    subtype = str(entry.get("data_subtype", record.get("data_subtype", "")))
    subtype = "test2015" if subtype.startswith("test") else subtype
    stated = [words_of(entry["file_name"], "a file_name")] if "file_name" in entry else []
    digits = id_key(image_id)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        return [*stated, f"{image_id}.jpg", image_id]
    number = f"{int(digits):012d}.jpg"
    return [*stated, f"{subtype}/COCO_{subtype}_{number}", f"COCO_{subtype}_{number}", number]
