"""``ofa evaluate`` over the mixture of a pretraining: rows of its files, as a pretrained model is
asked about them, and the score of each task."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

from ofa.data.sample import TASK
from ofa.errors import UserError
from ofa.inference.predictor import Predictor, cut
from ofa.io.images import decode_image
from ofa.io.progress import counted
from ofa.io.stored_options import is_readable_path
from ofa.io.terminal import with_noun
from ofa.metrics import pretraining as metrics
from ofa.metrics.pretraining import MASK, PredictedRow, Score, codes_of, middle_of
from ofa.models.image_tokenizer.codec import load_image_tokenizer
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.pretraining_tasks import PAIR_TASKS, TASKS
from ofa.task.task_spec import Decoding
from ofa.task.text import clean_phrase
from ofa.tasks.image_gen import num_codes
from ofa.tasks.pretraining import MATCHING, TEXT_INFILLING

logger = logging.getLogger(__name__)

LENGTHS = {
    "caption": 30,
    "qa": 10,
    "visual_grounding": 4,
    "grounded_captioning": 30,
    "image_text_matching": 4,
    "detection": 80,
    "text_infilling": 100,
}  # tokens of an answer; image infilling has as many as there are codes
FILES = ("data", "text_data", "image_data", "detection_data")  # options that name them
TRAINING_ROWS = 2000  # of each task, that constant answers are taken from


class PretrainingEvalSet:
    """The first rows of each task, and what a model predicts for them.

    Args:
        files: option -> path, or None. rows: of each task, at most. negatives: folder of wrong
            examples; default: the training's. repeated: take rows that ask the same as an earlier
            one, too; else an image is captioned once, and so is a region.
    Attributes: samples: task -> (sample, its row by column name).
    """

    def __init__(
        self,
        model: Predictor,
        files: Mapping[str, str | None],
        rows: int,
        negatives: str | None = None,
        repeated: bool = False,
    ):
        self.model, self.files, self.rows, self.repeated = model, dict(files), rows, repeated
        self.stored = model.checkpoint.trained.get("unify_task", {})
        self.negatives = negatives or self.stored.get("neg_sample_dir")
        weights = {task: 1.0 for task in TASKS} | ({} if self.negatives else {MATCHING: 0.0})
        # of two files the last is for evaluation
        options = {name: path and f"{path},{path}" for name, path in files.items()}
        self.task = model.checkpoint.set_up(
            "unify_task",
            **options,
            neg_sample_dir=self.negatives,
            task_weights=json.dumps(weights),
            skip_bad_rows=0,
            disable_validation=False,
        )
        self.task.spec = replace(self.task.spec, prediction=in_symbols)
        self.task.load_dataset("test")
        self.dataset = self.task.datasets["test"]
        self.dataset.prepare_for_device()
        self.samples: dict[str, list] = {task: [] for task in TASKS}
        self.collect()

    def collect(self) -> None:
        """Fill ``samples``. Rows that cannot be asked about are counted. Raises: UserError if
        there are no others."""
        seen, broken = set(), []  # questions; errors
        spans = pairwise(self.dataset.starts)
        for (name, file), (start, end) in zip(self.dataset.files.items(), spans):
            for index in range(end - start):
                tasks = {
                    task
                    for task in (PAIR_TASKS if file is self.dataset.pairs else [name])
                    if self.task.weights[task] and len(self.samples[task]) < self.rows
                }
                if not tasks:
                    break
                try:
                    row = file[index]
                    tasks &= set(file.schema.type_of(row, file.where(index)).tasks)
                    tasks = {task for task in tasks if question_of(task, row) not in seen}
                    parts = self.dataset[start + index] if tasks else ()
                except UserError as error:
                    broken.append(error)
                    continue
                for sample in chain.from_iterable(parts):
                    if (task := sample[TASK]) in tasks:
                        self.samples[task].append((sample, row))
                        if (question := question_of(task, row)) and not self.repeated:
                            seen.add(question)
        if broken and not any(self.samples.values()):
            raise broken[0]
        if broken:
            rows = with_noun(len(broken), "row")
            logger.warning("not scored: %s that nothing can be asked about: %s", rows, broken[0])

    def of_training(self) -> "PretrainingEvalSet":
        """Rows that the model was trained on, of the tasks that it is asked about."""
        first = {name: str(self.stored.get(name) or "").split(",")[0] for name in FILES}
        files = {
            name: path if path and self.files.get(name) and is_readable_path(path) else None
            for name, path in first.items()
        }
        return PretrainingEvalSet(self.model, files, TRAINING_ROWS, self.negatives, repeated=True)

    # --- texts

    def targets(self, task: str) -> list[str]:
        return [self.text(task, sample["target"]) for sample, _ in self.samples[task]]

    def text(self, task: str, tokens: Any) -> str:
        return self.in_words(task, self.task.vocabulary.pieces(tokens))

    def in_words(self, task: str, pieces: str) -> str:
        """Text of tokens; of text infilling the tokens as they are, of which a mask is one."""
        return pieces if task == "text_infilling" else self.task.bpe.decode(pieces).strip()

    def readable(self, pieces: str) -> str:
        """Tokens of text infilling as words between masks."""
        parts = [self.task.bpe.decode(part.strip()).strip() for part in pieces.split(MASK)]
        return f" {MASK} ".join(parts).strip()

    def accepted(self, task: str) -> dict[tuple, list[str]]:
        """What all rows of the file say of each image, or region, that is asked about; reads
        the whole file."""
        asked = {question_of(task, row) for _, row in self.samples[task]}
        found: dict[tuple, list[str]] = {question: [] for question in asked if question}
        pairs, bpe = self.dataset.pairs, self.task.bpe
        for index in range(len(pairs) if found else 0):
            row = pairs[index]
            with suppress(UserError):  # a row of unknown type says nothing
                if task in pairs.schema.type_of(row).tasks:
                    text = clean_phrase(row["caption"], self.task.cfg.max_tgt_length)
                    said = found.get(question_of(task, row))
                    if text and said is not None:
                        said.append(bpe.decode(bpe.encode(f" {text}")).strip())
        return found

    # --- asking

    def ask(self, task: str, beam: int = 3, batch_size: int = 50) -> list[PredictedRow]:
        """What the model predicts for each row."""
        count, codes = num_codes(self.task.cfg), self.task.vocabulary.codes
        options: dict[str, Any] = {"beam": beam, "max_len_a": 0}
        options["max_len_b"] = LENGTHS.get(task, count)
        if task == "image_infilling":
            span = (codes.start, codes.stop)
            options |= {"beam": 1, "gen_code": True, "min_len": count, "constraint_range": span}
        rows = TaskRows([sample for sample, _ in self.samples[task]], self.dataset.batch)
        batches = cut(len(rows), batch_size)
        decoding = Decoding(bins_only=task == "visual_grounding")
        predicted = self.model.predict(self.task, rows, batches, decoding, options)
        predicted = counted(predicted, len(batches), task, "batch")
        found = [one.text for _, _, some in predicted for one in some]
        accepted, asked = self.accepted(task), []
        for (sample, row), symbols in zip(self.samples[task], found):
            prediction, image = self.in_words(task, symbols), row.get("image", "")
            source, target = (self.text(task, sample[part]) for part in ("source", "target"))
            readable = None
            if task == "text_infilling":
                before, behind = map(self.task.bpe.encode, TEXT_INFILLING)
                source = source.removeprefix(before).removesuffix(behind).strip()
                readable = self.readable(source), self.readable(target), self.readable(prediction)
            references = tuple(dict.fromkeys([target, *accepted.get(question_of(task, row), ())]))
            asked.append(PredictedRow(source, target, prediction, references, image, readable))
        return asked

    def images(self, codes: Sequence[str]) -> list:
        return self.task.images(list(map(codes_of, codes)), self.model.device)

    def fill(
        self, predictions: Sequence[PredictedRow], training: "PretrainingEvalSet"
    ) -> tuple[list[PredictedRow], tuple[Score, ...]]:
        """Predictions of image infilling with their images, and how far these are from the true
        ones."""
        task = "image_infilling"
        true = [middle_of(decode_image(predicted.image)) for predicted in predictions]
        filled = self.images([predicted.prediction for predicted in predictions])
        shown = [middle_of(decode_image(row["image"])) for _, row in training.samples[task]]
        (commonest,) = self.images([metrics.commonest_codes(training.targets(task))])
        constants = {"image of the commonest codes": commonest, **metrics.average_images(shown)}
        of_true_codes = self.images([predicted.target for predicted in predictions])
        scores = metrics.score_pixels(filled, true, of_true_codes, constants)
        return [replace(row, filled=image) for row, image in zip(predictions, filled)], scores

    def scores(
        self, beam: int, batch_size: int, tokenizer: str | None = None
    ) -> Iterator[tuple[str, Score, list[PredictedRow]]]:
        """Of each task that has rows its score, and what was predicted. Args: tokenizer: path of
        what makes the images of image infilling. Raises: UserError if it has another codebook."""
        if tokenizer:
            self.task.image_tokenizer = load_image_tokenizer(tokenizer, self.model.device)
            self.task.check_tokenizer()
        training = self.of_training()
        for task in filter(self.samples.get, TASKS):
            predictions = self.ask(task, beam, batch_size)
            score = metrics.score(task, predictions, training.targets(task))
            if task == "image_infilling" and tokenizer:
                predictions, pixels = self.fill(predictions, training)
                score = replace(score, further=pixels)
            yield task, score, predictions


class TaskRows(list[Any]):
    """Samples of one task as the data set that ``Predictor.predict`` reads."""

    def __init__(self, samples: Sequence[Any], collater: Callable[[Sequence[Any]], Any]):
        super().__init__(samples)
        self.collater = collater


def in_symbols(hypothesis: Hypothesis, row: BatchRow, options: Any) -> Prediction:
    """What was generated as tokens: a mask is one, and what is no text has no words."""
    return Prediction(hypothesis.symbols, hypothesis.score)


def question_of(task: str, row: Mapping[str, str]) -> tuple:
    """What is the same question when rows agree in it, so that the texts of all of them are
    right answers: the same image, or region; empty for other tasks."""
    columns = {"caption": ("image",), "grounded_captioning": ("image", "answers")}.get(task)
    return (task, *(hash(row[name]) for name in columns)) if columns else ()
