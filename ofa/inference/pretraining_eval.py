"""``ofa evaluate`` over the mixture of a pretraining: rows of its files, as a pretrained model is
asked about them, and the score of each task."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ofa.data.sample import TASK
from ofa.errors import UserError
from ofa.inference.predictor import Predictor, cut
from ofa.io.images import decode_image
from ofa.io.progress import counted
from ofa.io.stored_options import is_readable_path
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
# tasks that accept what any row says of the same image, of the same region
SEVERAL = ("caption", "grounded_captioning")
FILES = ("data", "text_data", "image_data", "detection_data")  # options that name them
TRAINING_ROWS = 2000  # of each task, that constant answers are taken from


class PretrainingEvalSet:
    """The first rows of each task, and what a model predicts for them.

    Args:
        files: option -> path, or None. rows: of each task, at most. negatives: folder of wrong
            examples; default: the training's.
        repeated: take rows that ask the same as an earlier one, too; else an image is captioned
            once, and so is a region.
    Attributes:
        samples: task -> (sample, its row by column name).
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
        self.samples: dict[str, list] = {task: [] for task in TASKS}
        self.collect()

    def collect(self) -> None:
        """Fill ``samples``. Rows that cannot be asked about are counted. Raises: UserError if
        there are no others."""
        seen: set[tuple] = set()
        start, broken = 0, []
        for (name, file), end in zip(self.dataset.files.items(), self.dataset.starts[1:].tolist()):
            tasks = PAIR_TASKS if file is self.dataset.pairs else [name]
            for row in range(end - start):
                lacking = [
                    task
                    for task in tasks
                    if self.task.weights[task] and len(self.samples[task]) < self.rows
                ]
                if not lacking:
                    break
                try:
                    self.take(name, file, start, row, lacking, seen)
                except UserError as error:
                    broken.append(error)
            start = end
        if broken and not any(self.samples.values()):
            raise broken[0]
        if broken:
            message = "%d rows cannot be asked about and are not scored, the first: %s"
            logger.warning(message, len(broken), broken[0])

    def take(
        self, name: str, file: Any, start: int, index: int, lacking: Sequence[str], seen: set[tuple]
    ) -> None:
        """The samples of a row. Args: start: number of the file's first row. seen: questions of
        earlier rows; grows."""
        row = file[index]
        wanted = {
            task
            for task in self.dataset.tasks(name, index, row)
            if task in lacking and question_of(task, row) not in seen
        }
        parts = self.dataset[start + index] if wanted else ()
        for sample in (one for part in parts for one in part if one[TASK] in wanted):
            task = sample[TASK]
            self.samples[task].append((sample, row))
            if task in SEVERAL and not self.repeated:
                seen.add(question_of(task, row))

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
        found: dict[tuple, list[str]] = {}
        if task in SEVERAL:
            found = {question_of(task, row): [] for _, row in self.samples[task]}
        pairs, bpe = self.dataset.pairs, self.task.bpe
        for index in range(len(pairs) if found else 0):
            row = pairs[index]
            try:
                tasks = self.dataset.tasks("pairs", index, row)
            except UserError:  # a row of unknown type says nothing
                continue
            if task not in tasks or question_of(task, row) not in found:
                continue
            if text := clean_phrase(row["caption"], self.task.cfg.max_tgt_length):
                found[question_of(task, row)].append(bpe.decode(bpe.encode(f" {text}")).strip())
        return found

    # --- asking

    def ask(self, task: str, beam: int = 3, batch_size: int = 50) -> list[PredictedRow]:
        """What the model predicts for each row."""
        count, codes = num_codes(self.task.cfg), self.task.vocabulary.codes
        options: dict[str, Any] = {
            "beam": beam,
            "max_len_a": 0,
            "max_len_b": LENGTHS.get(task, count),
        }
        if task == "image_infilling":
            span = (codes.start, codes.stop)
            options |= {"beam": 1, "gen_code": True, "min_len": count, "constraint_range": span}
        rows = TaskRows(self.dataset, [sample for sample, _ in self.samples[task]])
        batches = cut(len(rows.samples), batch_size)
        decoding = Decoding(bins_only=task == "visual_grounding")
        predicted = self.model.predict(self.task, rows, batches, decoding, options)
        found = [
            self.in_words(task, one.text)
            for _, _, some in counted(predicted, len(batches), task, "batch")
            for one in some
        ]
        accepted = self.accepted(task)
        return [
            self.predicted_row(task, sample, row, one, accepted.get(question_of(task, row), ()))
            for (sample, row), one in zip(self.samples[task], found)
        ]

    def predicted_row(
        self,
        task: str,
        sample: Mapping[str, Any],
        row: Mapping[str, str],
        prediction: str,
        accepted: Sequence[str],
    ) -> PredictedRow:
        source, target = (self.text(task, sample[part]) for part in ("source", "target"))
        readable = None
        if task == "text_infilling":
            before, behind = map(self.task.bpe.encode, TEXT_INFILLING)
            source = source.removeprefix(before).removesuffix(behind).strip()
            readable = self.readable(source), self.readable(target), self.readable(prediction)
        references = tuple(dict.fromkeys([target, *accepted]))
        return PredictedRow(source, target, prediction, references, row.get("image", ""), readable)

    # --- images

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
        found = metrics.score_pixels(filled, true, of_true_codes, constants)
        return [
            replace(predicted, filled=image) for predicted, image in zip(predictions, filled)
        ], found

    def scores(
        self, beam: int, batch_size: int, tokenizer: str | None = None
    ) -> Iterator[tuple[str, Score, list[PredictedRow]]]:
        """Of each task that has rows its score, and what was predicted.

        Args: tokenizer: path of what makes images of codes, which image infilling is shown with.
        Raises: UserError if it has another codebook.
        """
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


class TaskRows:
    """Samples of one task as what ``Predictor.predict`` reads."""

    def __init__(self, dataset: Any, samples: Sequence[Any]):
        self.samples, self.collater = samples, dataset.batch

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def in_symbols(hypothesis: Hypothesis, row: BatchRow, options: Any) -> Prediction:
    """What was generated as tokens: a mask is one, and what is no text has no words."""
    return Prediction(hypothesis.symbols, hypothesis.score)


def question_of(task: str, row: Mapping[str, str]) -> tuple:
    """What is the same question when rows agree in it, so that the texts of all of them are
    right answers; empty for other tasks."""
    if task == "caption":
        return task, hash(row["image"])
    if task == "grounded_captioning":
        return task, hash(row["image"]), row["answers"]
    return ()
