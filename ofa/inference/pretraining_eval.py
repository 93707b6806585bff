"""Rows of files of pretraining, as a pretrained model is asked about them."""

import json
import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ofa.data.sample import TASK
from ofa.errors import UserError
from ofa.inference.evaluate import to_device
from ofa.inference.predictor import OFA
from ofa.io.images import decode_image
from ofa.io.progress import counted
from ofa.io.stored_options import is_readable_path
from ofa.metrics.pretraining import (
    MASK,
    Reply,
    Score,
    average_images,
    codes_of,
    commonest_codes,
    middle_of,
    score_pixels,
)
from ofa.models.image_tokenizer.codec import load_image_tokenizer
from ofa.task.pretraining_tasks import PAIR_TASKS, TASKS
from ofa.task.task_spec import Decoding
from ofa.task.text import clean_phrase
from ofa.tasks.pretraining import MATCHING, TEXT_INFILLING
from ofa.tokens.image_codes import CODE_SIDE

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
        model: OFA,
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
        self.task.load_dataset("test")
        self.dataset = self.task.datasets["test"]
        self.samples: dict[str, list] = {task: [] for task in TASKS}
        self.collect()

    def collect(self) -> None:
        """Fill ``samples``. Rows that cannot be asked about are counted. Raises: UserError if
        there are no others."""
        seen, start, broken = set(), 0, []
        for (name, file), end in zip(self.dataset.files.items(), self.dataset.starts[1:].tolist()):
            tasks = PAIR_TASKS if file is self.dataset.pairs else [name]
            for index in range(start, end):
                lacking = [
                    task
                    for task in tasks
                    if self.task.weights[task] and len(self.samples[task]) < self.rows
                ]
                if not lacking:
                    break
                try:
                    row = file[index - start]
                    wanted = {
                        task
                        for task in self.dataset.tasks(name, index - start, row)
                        if task in lacking and question_of(task, row) not in seen
                    }
                    parts = self.dataset[index] if wanted else ()
                except UserError as error:
                    broken.append(error)
                    continue
                for sample in (one for part in parts for one in part if one[TASK] in wanted):
                    self.samples[sample[TASK]].append((sample, row))
                    if sample[TASK] in SEVERAL and not self.repeated:
                        seen.add(question_of(sample[TASK], row))
            start = end
        if broken and not any(self.samples.values()):
            raise broken[0]
        if broken:
            logger.warning(
                "%d rows cannot be asked about and are not scored, the first: %s",
                len(broken),
                broken[0],
            )

    def of_training(self) -> "PretrainingEvalSet":
        """Rows that the model was trained on, of the tasks that it is asked about."""
        first = {name: str(self.stored.get(name) or "").split(",")[0] for name in FILES}
        files = {
            name: path if path and self.files.get(name) and is_readable_path(path) else None
            for name, path in first.items()
        }
        return PretrainingEvalSet(self.model, files, TRAINING_ROWS, self.negatives, repeated=True)

    def targets(self, task: str) -> list[str]:
        return [self.text(task, sample["target"]) for sample, _ in self.samples[task]]

    # --- texts
    # ----------------------------------------------------------------------------------------------

    def text(self, task: str, tokens) -> str:
        """Text of token ids; of text infilling the tokens as they are, of which a mask is one."""
        vocabulary = self.task.vocabulary
        ids = [
            int(token)
            for token in tokens
            if int(token) not in (vocabulary.bos, vocabulary.eos, vocabulary.pad)
        ]
        pieces = vocabulary.pieces(ids, drop=())
        return pieces if task == "text_infilling" else self.task.bpe.decode(pieces).strip()

    def words(self, pieces: str) -> str:
        """Tokens of text infilling as words between masks."""
        return f" {MASK} ".join(
            self.task.bpe.decode(part.strip()).strip() for part in pieces.split(MASK)
        ).strip()

    def accepted(self, task: str) -> dict[tuple, list[str]]:
        """What all rows of the file say of each image, or region, that is asked about; reads
        the whole file."""
        found: dict[tuple, list[str]] = {
            question_of(task, row): [] for _, row in self.samples[task]
        }
        pairs, limit = self.dataset.pairs, self.task.cfg.max_tgt_length
        for index in range(len(pairs)):
            row = pairs[index]
            try:
                tasks = self.dataset.tasks("pairs", index, row)
            except UserError:  # a row of unknown type says nothing
                continue
            if (
                task in tasks
                and question_of(task, row) in found
                and (text := clean_phrase(row["caption"], limit))
            ):
                found[question_of(task, row)].append(
                    self.task.bpe.decode(self.task.bpe.encode(f" {text}")).strip()
                )
        return found

    # --- asking
    # ---------------------------------------------------------------------------------------------

    def ask(self, task: str, beam: int = 3, batch_size: int = 50) -> list[Reply]:
        """What the model predicts for each row."""
        samples, codes = self.samples[task], self.task.vocabulary.codes
        count = (self.task.cfg.code_image_size // CODE_SIDE) ** 2
        options: dict[str, Any] = {
            "beam": beam,
            "max_len_a": 0,
            "max_len_b": LENGTHS.get(task, count),
        }
        if task == "image_infilling":
            options |= {
                "beam": 1,
                "gen_code": True,
                "min_len": count,
                "constraint_range": (codes.start, codes.stop),
            }
        network = self.model.network
        generator = self.task.generator_for(
            [network], Namespace(**options), Decoding(bins_only=task == "visual_grounding")
        )
        said = []
        starts = range(0, len(samples), batch_size)
        for start in counted(starts, len(starts), task, "batch"):
            batch = self.dataset.batch(
                [sample for sample, _ in samples[start : start + batch_size]]
            )
            batch = to_device(batch, self.model.device, self.model.dtype)
            said += [
                self.text(task, best[0]["tokens"].tolist())
                for best in generator.generate([network], batch)
            ]
        accepted = self.accepted(task) if task in SEVERAL else {}
        return [
            self.reply(task, sample, row, one, accepted.get(question_of(task, row), ()))
            for (sample, row), one in zip(samples, said)
        ]

    def reply(
        self, task: str, sample: Mapping[str, Any], row: Mapping[str, str], said: str, accepted
    ) -> Reply:
        source, target = (self.text(task, sample[part]) for part in ("source", "target"))
        readable = None
        if task == "text_infilling":
            before, behind = map(self.task.bpe.encode, TEXT_INFILLING)
            source = source.removeprefix(before).removesuffix(behind).strip()
            readable = self.words(source), self.words(target), self.words(said)
        return Reply(
            source,
            target,
            said,
            tuple(dict.fromkeys([target, *accepted])),
            row.get("image", ""),
            readable,
        )

    # --- images
    # -------------------------------------------------------------------------------------------

    def take_tokenizer(self, path: str) -> None:
        """What makes images of codes. Raises: UserError if there is none, or it has another
        codebook."""
        self.task.image_tokenizer = load_image_tokenizer(path, self.model.device)
        self.task.check_tokenizer()

    def images(self, codes: list[str]) -> list:
        return self.task.images(list(map(codes_of, codes)), self.model.device)

    def fill(
        self, replies: list[Reply], training: "PretrainingEvalSet"
    ) -> tuple[list[Reply], tuple[Score, ...]]:
        """Replies of image infilling with their images, and how far these are from the true
        ones."""
        true = [middle_of(decode_image(reply.image)) for reply in replies]
        filled = self.images([reply.prediction for reply in replies])
        shown = [
            middle_of(decode_image(row["image"])) for _, row in training.samples["image_infilling"]
        ]
        constants = {
            "image of the commonest codes": self.images(
                [commonest_codes(training.targets("image_infilling"))]
            )[0]
        }
        constants |= average_images(shown)
        found = score_pixels(
            filled, true, self.images([reply.target for reply in replies]), constants
        )
        return [replace(reply, filled=image) for reply, image in zip(replies, filled)], found


def question_of(task: str, row: Mapping[str, str]) -> tuple:
    """What is the same question when rows agree in it, so that the texts of all of them are
    right answers; empty for other tasks."""
    if task == "caption":
        return task, hash(row["image"])
    if task == "grounded_captioning":
        return task, hash(row["image"]), row["answers"]
    return ()
