"""From a batch to predictions: generators with a task's constraints, ranking of all answers, words
for tokens.

What ``OFATask`` inherits; validation and ``ofa evaluate`` both predict with it.
"""

import math
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from fairseq.tasks import FairseqTask
from fairseq.utils import strip_pad

from ofa.errors import UserError
from ofa.io.json_files import load_json
from ofa.models.generation.generator import SequenceGenerator, encode_all, inference_networks
from ofa.models.generation.options import GenerationOptions
from ofa.models.generation.ranking import AnswerRanker
from ofa.task.answers import AnswerOptions, AnswerSet
from ofa.task.chinese import without_spaces
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import Decoding, TaskSpec
from ofa.tokens.vocabulary import Vocabulary

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
    """A task that can answer.

    Attributes:
        spec: the declaration of the task. vocabulary, bpe: its tokens.
        answers: what may be answered; None: anything.
    """

    spec: TaskSpec
    vocabulary: Vocabulary
    bpe: Any
    answers: AnswerSet | None = None
    ranker: AnswerRanker | None = None

    # --- generators

    def arguments(self, option: str) -> Namespace:
        """The generation options of a JSON flag such as ``--eval-args '{"beam":5}'``."""
        text = getattr(self.cfg, option, None) or "{}"
        flag, example = "--" + option.replace("_", "-"), "such as '{\"beam\":5}', found"
        try:
            given = load_json(text)
        except ValueError as error:
            raise UserError(f"{flag}: expects JSON {example} {text!r} ({error})") from error
        if not isinstance(given, dict):
            raise UserError(f"{flag}: expects a JSON object {example} {text!r}")
        return Namespace(**given)

    def build_generator(
        self,
        models,
        args,
        seq_gen_cls=None,
        extra_gen_cls_kwargs=None,
        prefix_allowed_tokens_fn=None,
    ) -> SequenceGenerator:
        """A generator for the options of a namespace.

        ``--constraint-range`` is the task's by default; generation follows the trie of the task's
        answers.
        """
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
        """Asked by fairseq's commands, which print words with it. Args: args: fairseq's own
        choice; ours is --bpe-dir's."""
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
        """What the models answer to each row of a batch.

        Args: count: hypotheses of a row that become predictions; all but the best are its
            ``others``.
        """
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
        prefix = self.prefix_tokens(sample)
        given = [0] * sample["nsentences"]
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
            scores = self.ranker.scores(models, sample, prompts)
            return [best_answers(self.answers, row, count) for row in scores]
        encoded, found = encode_all(inference_networks(models), sample), []
        for row, (answers, prompt) in enumerate(zip(sample["answers"], prompts, strict=True)):
            index = torch.tensor([row], device=sample["target"].device)
            ranker = AnswerRanker(answers.trie, bos, NODES_PER_ANSWER * len(answers))
            one = [output.select(index) for output in encoded]
            (scores,) = ranker.scores(models, sample, [prompt], one)
            found.append(best_answers(answers, scores, count))
        return found

    # --- tokens and words

    def decode(self, tokens: Iterable[int], unknown: str = UNKNOWN) -> str:
        """Text of token ids; start, end and padding are left out. Chinese has no spaces between its
        characters.

        Args:
            unknown: stands for unknown tokens. Hypotheses and references use different words, so
                that they never match.
        """
        text = self.bpe.decode(self.vocabulary.pieces(tokens)).replace(UNKNOWN, unknown)
        return without_spaces(text) if self.bpe.kind == "bert" else text

    def hypothesis(self, tokens: Iterable[int], score: float = math.nan) -> Hypothesis:
        """Generated tokens in words."""
        # a GPU is asked once, not per token
        tokens = tokens.tolist() if isinstance(tokens, torch.Tensor) else list(tokens)
        text = self.decode(tokens, unknown="UNKNOWNTOKENINHYP").strip()
        return Hypothesis(text, float(score), self.vocabulary.pieces(tokens))

    def target_text(self, tokens: Iterable[int]) -> str:
        return self.decode(tokens, unknown="UNKNOWNTOKENINREF")

    # --- what a batch says of its rows

    def prefix_tokens(self, sample: Mapping[str, Any]) -> torch.Tensor | None:
        """What every hypothesis begins with, the decoder's prompt without <s>: int64[B, P],
        padded on the right."""
        if sample.get("decoder_prompts") is None or sample.get("prefix_tokens") is not None:
            return sample.get("prefix_tokens")
        device = sample["net_input"]["src_tokens"].device
        given = [
            torch.tensor(list(prompt[1:]), dtype=torch.int64, device=device)
            for prompt in sample["decoder_prompts"]
        ]
        pad = self.vocabulary.pad
        return torch.nn.utils.rnn.pad_sequence(given, batch_first=True, padding_value=pad)

    def prompts(self, sample: Mapping[str, Any]) -> Sequence[Sequence[int]]:
        """What the decoder of each row is given before it answers, from <s> on; where the batch
        does not say it, all that lies before the first learned token (of a row without one,
        everything).
        """
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


def best_answers(answers: AnswerSet, scores: torch.Tensor, count: int) -> list[Hypothesis]:
    """Args: scores: float[answers], log-probabilities."""
    best, order = scores.topk(min(count, len(answers)))
    found = zip(best.tolist(), order.tolist())
    return [Hypothesis(answers.texts[answer], score) for score, answer in found]


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
