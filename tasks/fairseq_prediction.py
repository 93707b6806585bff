"""From the files of a split to batches, in fairseq's words, with a check before a training starts
whether every row can be learned with the answers that the run allows; and from a batch to
predictions: generators with a task's constraints, ranking of all answers, words for tokens. What
``OFATask`` inherits; validation and ``ofa evaluate`` both predict with it."""

import logging
import math
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask
from fairseq.utils import strip_pad
from torch import distributed
from torch.nn.utils.rnn import pad_sequence

from ofa.data.fairseq_dataset import OFADataset
from ofa.data.rows import Rows, open_rows
from ofa.data.sample import SampleBuilder
from ofa.data.tsv import data_files
from ofa.errors import UserError
from ofa.io.terminal import with_noun
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions, parse_generation_options
from ofa.models.generation.ranking import AnswerRanker
from ofa.models.inference_weights import encode_all, inference_networks
from ofa.task.answers import AnswerOptions, AnswerSet, MissingAnswers, source_of
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import Decoding, TaskSpec
from ofa.task.text import without_spaces
from ofa.tokens.vocabulary import Vocabulary
from ofa.trainer.fairseq_distributed import of_all_ranks
from ofa.trainer.fairseq_resume import RowIterator
from ofa.trainer.nonfinite import check_loss

logger = logging.getLogger(__name__)

LOOKED_AT = 1000  # rows of an evaluation file whose answers are looked at
UNKNOWN = "<unk>"
# of the answers' trie, which need less memory than upstream's pass of one answer
NODES_PER_ANSWER = 16
# columns of a batch -> fields of ``BatchRow``
ROW_FIELDS = {
    "id": "id",
    "target_strs": "target_str",
    "ref_dict": "ref_dict",
    "w_resize_ratios": "w_resize_ratio",
    "h_resize_ratios": "h_resize_ratio",
    "region_coords": "region_coord",
}


class AnsweringTask(FairseqTask):
    """A task that reads rows and answers them."""

    spec: TaskSpec
    vocabulary: Vocabulary  # of the folder ``--bpe-dir``, as the next two
    dictionary: Dictionary
    bpe: Any
    answers: AnswerSet | None = None  # what may be answered; None: anything
    checked: frozenset[str] = frozenset()  # kinds of files that were found to be answerable
    ranker: AnswerRanker | None = None

    # --- rows

    def has_sharded_data(self, split: str) -> bool:
        """Whether a file of a split changes with the epoch."""
        return split == "train" and any(len(paths) > 1 for paths in self.training_files().values())

    def training_files(self) -> dict[str, list[str]]:
        """Name of a kind of rows -> the files of them that training takes in turn, one an epoch."""
        return {"train": data_files(self.cfg.data, "train")}

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Open the file of a split: of several training files the one whose turn it is in
        ``epoch``. Raises: UserError if it is missing or its columns do not fit."""
        paths = data_files(self.cfg.data, split)
        if not paths:
            raise UserError(
                f"{self.cfg.data!r}: expected the path of a TSV file, found none; give"
                " train.tsv,valid.tsv"
            )
        dataset = self.open_file(paths[(epoch - 1) % len(paths)], split)
        logger.info("%s: %s, %s", split, dataset.file.path, with_noun(len(dataset), "row"))
        kind = "training" if split == "train" else "evaluation"
        if self.answers is not None and kind not in self.checked:
            self.check_answers(dataset, self.answers)
            self.checked |= {kind}
        self.datasets[split] = dataset

    def open_file(self, path: str, split: str) -> OFADataset:
        columns = self.cfg.selected_cols or self.spec.default_cols
        return self.dataset_of(open_rows(path, columns), split)

    def builder(self, split: str) -> SampleBuilder:
        """What makes samples of rows."""
        language = self.vocabulary, self.bpe
        return SampleBuilder(self.spec, self.options(), *language, split, answers=self.answers)

    def dataset_of(self, file: Rows, split: str) -> OFADataset:
        """The rows of a file as those of a split."""
        shuffle = split == "train" and self.cfg.shuffle
        return OFADataset(file, self.builder(split), shuffle, self.cfg.shuffle_buffer)

    def check_answers(self, dataset: OFADataset, answers: AnswerSet) -> None:
        """Whether rows can be answered with this run's set of answers: every row of all training
        files, by several processes together, as another answer would have an infinite loss; of an
        evaluation file the first rows, which tell whether it is that of another dataset. Raises:
        UserError with every answer that is missing and where it first occurs."""
        learned, datasets = dataset.builder.split == "train", [dataset]
        if not learned and not self.spec.predicts("label"):
            return
        if learned:
            paths = dict.fromkeys(self.training_files()["train"])
            datasets = [self.open_file(path, "train") for path in paths]
        shared = learned and distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if shared else (0, 1)
        found = MissingAnswers(answers.length_of)
        for rows in datasets:
            for row in range(rank, len(rows) if learned else min(LOOKED_AT, len(rows)), world):
                example = rows.example(row)
                if answer := "".join(example.target).strip():
                    longest = example.max_target_tokens if learned else None
                    found.look_at(answer, rows.file.where(row), longest)
        if learned:
            found, *others = of_all_ranks(found)
            found.merge(others)
        files, source = " ".join(rows.file.path for rows in datasets), source_of(self.cfg)
        if found:
            for line in found.lines() if learned else ():
                logger.error("missing answer %s", line)
            may_be_free = hasattr(self.cfg, "unconstrained_training")
            raise UserError(found.message(files, len(answers), source, may_be_free))
        if learned:
            count, known = with_noun(found.rows, "row"), with_noun(len(answers), "answer")
            logger.info("%s: %s, each with one of the %s of %s", files, count, known, source)

    def options(self) -> Any:
        """The task's part of the configuration as plain values: small to send to workers."""
        return self.spec.options(
            **{name: getattr(self.cfg, name) for name in self.spec.options.__dataclass_fields__}
        )

    def get_batch_iterator(
        self,
        dataset,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        seed: int = 1,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        num_shards: int = 1,
        shard_id: int = 0,
        skip_remainder_batch: bool = False,
        **unused: Any,
    ) -> RowIterator:
        """In place of fairseq's, which keeps every batch as an array of its own, and shuffles the
        batches, which are cut from the rows in their order for the epoch, once more. Left as they
        are, an update sees the same rows whether a large batch is one process's, spread over
        ``--update-freq``, or over several processes.

        Every pass has its own workers, which end with it. Workers that outlive it would be stopped
        by the garbage collector, after the queues they listen to: each waits 5 seconds then. The
        thread that fills fairseq's buffer ends them in time, so workers always come with a buffer.
        """
        dataset.set_seed(seed)
        dataset.set_epoch(epoch)
        order = dataset.ordered_indices()
        return RowIterator(
            dataset,
            dataset.batch_by_size(order, max_tokens, max_sentences),
            seed=seed,
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            epoch=epoch,
            buffer_size=max(data_buffer_size, int(num_workers > 0)),
            skip_remainder_batch=skip_remainder_batch,
        )

    def valid_step(self, sample, model, criterion):
        """Loss of a batch; one that is not finite gets a warning from the trainer."""
        result = super().valid_step(sample, model, criterion)
        check_loss(result[0], sample, skips=True)
        return result

    def build_dataset_for_inference(self, src_tokens, src_lengths, **kwargs):
        """Asked by ``fairseq-interactive``, whose lines have no images."""
        asks = "asks about text alone, a task of OFA about images"
        raise UserError(f"fairseq-interactive: {asks}; use: ofa predict")

    def eval_lm_dataloader(self, dataset, **kwargs):
        scores = "scores language models, found an encoder-decoder"
        raise UserError(f"fairseq-eval-lm: {scores}; use: fairseq-validate")

    def filter_indices_by_size(
        self, indices, dataset, max_positions=None, ignore_invalid_inputs=False
    ):
        """All: the declaration cuts long texts, and lengths are unknown before a row is read."""
        return indices

    def max_positions(self) -> tuple[int, int]:
        return self.cfg.max_source_positions, self.cfg.max_target_positions

    @property
    def source_dictionary(self) -> Dictionary:
        return self.dictionary

    target_dictionary = source_dictionary

    # --- generators

    def arguments(self, option: str) -> Namespace:
        """The generation options of a JSON flag such as ``--eval-args '{"beam":5}'``."""
        text = getattr(self.cfg, option, None) or "{}"
        return Namespace(**parse_generation_options(text, "--" + option.replace("_", "-")))

    def build_generator(
        self,
        models,
        args,
        seq_gen_cls=None,
        extra_gen_cls_kwargs=None,
        prefix_allowed_tokens_fn=None,
    ) -> SequenceGenerator:
        """A generator for the options of a namespace; ``--constraint-range`` is the task's by
        default, and generation follows the trie of the task's answers."""
        options = GenerationOptions.from_namespace(
            args,
            constraint_range=getattr(self.cfg, "constraint_range", None),
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
        )
        symbols = {name: getattr(self.vocabulary, name) for name in ("bos", "pad", "eos", "unk")}
        # fairseq-generate names a language model without --lm-path as well
        without = ("lm_model", "lm_weight")
        more = {k: v for k, v in (extra_gen_cls_kwargs or {}).items() if k not in without}
        make = seq_gen_cls or SequenceGenerator
        generator = make(models, options, vocab_size=len(self.vocabulary), **symbols, **more)
        generator.constraint_trie = self.answers and self.answers.trie
        return generator

    def build_bpe(self, args) -> Any:
        """Asked by fairseq's commands, which print words with it."""
        return self.bpe

    def generator_for(self, models, args: Namespace, decoding: Decoding) -> SequenceGenerator:
        """A generator that decodes as a task declares it."""
        if decoding.bins_only:
            bins, corners = self.vocabulary.bins, {"min_len": 4, "max_len_a": 0, "max_len_b": 4}
            args = Namespace(**{"only_range": (bins.start, bins.stop), **vars(args), **corners})
        generator = self.build_generator(models, args)
        generator.zero_shot = generator.zero_shot or decoding.zero_shot
        if not decoding.constrained:
            generator.constraint_trie = None
        return generator

    # --- predictions

    def predict(
        self,
        sample: Mapping[str, Any],
        models,
        generator: SequenceGenerator,
        decoding: Decoding,
        count: int = 1,
    ) -> list[Prediction]:
        """What the models answer to each row of a batch. Args: count: hypotheses of a row that
        become predictions; all but the best are its ``others``."""
        found = self.hypotheses(sample, models, generator, decoding, count)
        predictions = []
        for row, best in zip(self.rows(sample), found):
            first, *others = (self.spec.prediction(one, row, self.cfg) for one in best)
            first.others = others
            predictions.append(first)
        return predictions

    def hypotheses(
        self, sample, models, generator, decoding: Decoding, count: int
    ) -> list[list[Hypothesis]]:
        """The best ``count`` hypotheses of each row of a batch, best first."""
        if sample.get("answers") is not None or decoding.rank:
            return self.ranked(sample, models, count)
        prefix, given = self.prefix_tokens(sample), [0] * sample["nsentences"]
        if prefix is not None:
            given = prefix.ne(self.vocabulary.pad).sum(1).tolist()
        generated = self.inference_step(generator, models, sample, prefix)
        return [
            [
                self.hypothesis(one["tokens"][length:], score_behind(one, length, generator))
                for one in best[:count]
            ]
            for best, length in zip(generated, given)
        ]

    def ranked(self, sample, models, count: int) -> list[list[Hypothesis]]:
        """The best ``count`` of all answers for each row of a batch: the task's, or the row's
        own."""
        prompts, bos = self.prompts(sample), self.vocabulary.bos
        if sample.get("answers") is None:
            assert self.answers is not None
            if self.ranker is None:
                at_once = getattr(self.cfg, "valid_batch_size", AnswerOptions.valid_batch_size)
                self.ranker = AnswerRanker(self.answers.trie, bos, NODES_PER_ANSWER * at_once)
            return best_answers(self.answers, self.ranker.scores(models, sample, prompts), count)
        encoded, found = encode_all(inference_networks(models), sample), []
        for row, (answers, prompt) in enumerate(zip(sample["answers"], prompts, strict=True)):
            index = torch.tensor([row]).to(sample["target"].device, non_blocking=True)
            ranker = AnswerRanker(answers.trie, bos, NODES_PER_ANSWER * len(answers))
            one = [output.select(index) for output in encoded]
            found += best_answers(answers, ranker.scores(models, sample, [prompt], one), count)
        return found

    # --- tokens and words

    def decode(self, tokens: Iterable[int], unknown: str = UNKNOWN) -> str:
        """Text of token ids; start, end and padding are left out. Chinese has no spaces between its
        characters. Args: unknown: stands for unknown tokens, in hypotheses another word than in
        references, so that they never match."""
        text = self.bpe.decode(self.vocabulary.pieces(tokens)).replace(UNKNOWN, unknown)
        return without_spaces(text) if self.bpe.kind == "bert" else text

    def hypothesis(self, tokens: Iterable[int], score: float = math.nan) -> Hypothesis:
        # a GPU is asked once, not per token
        tokens = tokens.tolist() if isinstance(tokens, torch.Tensor) else list(tokens)
        text = self.decode(tokens, unknown="UNKNOWNTOKENINHYP").strip()
        return Hypothesis(text, float(score), self.vocabulary.pieces(tokens))

    def target_text(self, tokens: Iterable[int]) -> str:
        return self.decode(tokens, unknown="UNKNOWNTOKENINREF")

    # --- what a batch says of its rows

    def prefix_tokens(self, sample: Mapping[str, Any]) -> torch.Tensor | None:
        """What every hypothesis begins with, the decoder's prompt without <s>: int64[B, P]."""
        if sample.get("decoder_prompts") is None or sample.get("prefix_tokens") is not None:
            return sample.get("prefix_tokens")
        device = sample["net_input"]["src_tokens"].device
        given = [
            torch.tensor(list(prompt[1:]), dtype=torch.int64)
            for prompt in sample["decoder_prompts"]
        ]
        padded = pad_sequence(given, batch_first=True, padding_value=self.vocabulary.pad)
        return padded.to(device, non_blocking=True)

    def prompts(self, sample: Mapping[str, Any]) -> Sequence[Sequence[int]]:
        """What the decoder of each row is given before it answers, from <s> on; where the batch
        does not say it, all before the first learned token (of a row without one, everything)."""
        if sample.get("decoder_prompts") is not None:
            return sample["decoder_prompts"]
        read = sample["net_input"]["prev_output_tokens"]
        given, learned = (tokens.ne(self.vocabulary.pad) for tokens in (read, sample["target"]))
        lengths = torch.where(learned.any(1), learned.int().argmax(1) + 1, given.sum(1)).tolist()
        return [row[:length] for row, length in zip(read.tolist(), lengths)]

    def rows(self, sample: Mapping[str, Any]) -> list[BatchRow]:
        """What the rows of a batch are, besides what the network sees."""
        targets = [strip_pad(row, self.vocabulary.pad) for row in sample["target"].cpu()]
        present = {"target": list(map(self.target_text, targets))}
        for name, field in ROW_FIELDS.items():
            if sample.get(name) is not None:
                present[field] = as_list(sample[name])
        return [BatchRow(**dict(zip(present, values))) for values in zip(*present.values())]


def best_answers(answers: AnswerSet, scores: torch.Tensor, count: int) -> list[list[Hypothesis]]:
    """Of each row. Args: scores: float[B, answers], log-probabilities."""
    best, order = scores.cpu().topk(min(count, len(answers)))
    return [
        [Hypothesis(answers.texts[answer], score) for score, answer in zip(*row)]
        for row in zip(best.tolist(), order.tolist())
    ]


def score_behind(hypothesis: Mapping[str, Any], given: int, generator: SequenceGenerator) -> float:
    """Score of what was generated behind the first ``given`` tokens, which were not the
    network's choice."""
    if not given or "positional_scores" not in hypothesis:
        return float(hypothesis.get("score", math.nan))
    tokens, options = hypothesis["positional_scores"][given:], generator.options
    length = 1.0 if options.unnormalized else max(len(tokens), 1) ** options.lenpen
    return float(tokens.sum()) / length


def as_list(values: Any) -> list:
    """One value per row, as plain numbers and tuples where they are tensors or arrays."""
    if isinstance(values, list):
        return values
    return [tuple(value) if isinstance(value, list) else value for value in values.tolist()]
