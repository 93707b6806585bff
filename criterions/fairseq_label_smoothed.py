"""Label-smoothed cross-entropy and the encouraging loss as fairseq criterions."""

from dataclasses import dataclass

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from ofa.criterions import losses
from ofa.criterions.fairseq_criterion import (
    CriterionConfig,
    OFACriterion,
    model_inputs,
    scored_logits,
    scored_logits_of_all,
)
from ofa.data.collate import FACTS, IMAGE_ROWS
from ofa.errors import UserError
from ofa.io.flags import option

SCORED = "scored_positions"  # key of a batch: int64[N], positions of its targets that have a loss


@dataclass
class LabelSmoothedConfig(CriterionConfig):
    label_smoothing: float = option(0.0, "weight that the target shares with all other tokens")
    report_accuracy: bool = option(False, "log the share of tokens that are predicted right")
    ignore_eos: bool = option(False, "no loss for the end of sentence")
    drop_worst_ratio: float = option(0.0, "share of tokens to leave out, those of largest loss")
    drop_worst_after: int = option(0, "leave them out after this many updates")
    use_rdrop: bool = option(False, "R-Drop: two passes by dropout, their divergence as a loss")
    reg_alpha: float = option(1.0, "weight of the R-Drop divergence")
    sample_patch_num: int = option(
        196, "image patches drawn per sample of the first batch of a pretraining pair; 0 = all"
    )


@dataclass
class EncouragingConfig(LabelSmoothedConfig):
    log_end: float = option(
        0.75, "probability from which the bonus log(1-p) continues as a straight line; 1 = never"
    )
    drop_best_ratio: float = option(0.0, "share of tokens to leave out, those of smallest loss")
    drop_best_after: int = option(0, "leave them out after this many updates")


@register_criterion("adjust_label_smoothed_cross_entropy", dataclass=LabelSmoothedConfig)
class AdjustLabelSmoothedCrossEntropyCriterion(OFACriterion):
    """Label-smoothed cross-entropy, with R-Drop and without the tokens of largest loss on request.

    Works with any model that returns (logits float[B, T, V], extra) and any vocabulary.
    """

    config = LabelSmoothedConfig
    # a loss is proportional to the log-probabilities, so that a confidence can weigh either
    linear = True
    averages = {
        "loss": ("sample_size", "sample_size"),
        "loss_v1": ("sample_size_v1", "sample_size_v1"),
        "loss_v2": ("sample_size_v2", "sample_size_v2"),
        "nll_loss": ("sample_size", "ntokens"),
    }
    counts = (*OFACriterion.counts, "sample_size_v1", "sample_size_v2")
    optional = ("loss_v1", "loss_v2", "sample_size_v1", "sample_size_v2")  # of pretraining

    cfg: LabelSmoothedConfig

    def __init__(self, task, **options) -> None:
        super().__init__(task, **options)
        for name in ("drop_worst_ratio", "drop_best_ratio"):
            share = getattr(self.cfg, name, 0)
            if not 0 <= share < 1:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} is a share in [0, 1), found {share}")

    def forward(self, model, sample, update_num=0, reduce=True):
        """Loss of a batch, or of a pretraining step when ``sample`` is a pair of batches.

        Args:
            sample: the batch dict of ``ofa.data.collate``, perhaps with ``conf``,
                ``constraint_masks`` and, for a log of loss and accuracy of each task, ``tasks``
                (int64[B], numbers of ``task.parts``).
            update_num: number of updates so far, for ``--drop-worst-after``.
            reduce: part of fairseq's interface; the loss is always a sum.

        Returns: summed loss, sample size to divide the gradient by, values for the log.
        """
        if isinstance(sample, (list, tuple)):
            return self.pretraining_step(model, sample, update_num)
        sample, positions = self.scored(sample, is_training(model))
        logits, rows = scored_logits(model, model_inputs(model, sample), positions)
        return self.loss_and_log(model, sample, positions, logits, rows, update_num)

    def prepare(self, sample, training):
        """Finds the positions that have a loss, int64[N]. Raises: UserError in training if a target
        is not among the tokens that its answers may use; in a validation it has no loss: a rare
        answer, which no training has to know."""
        if isinstance(sample, (list, tuple)):
            return type(sample)(self.prepare(part, training) for part in sample)
        if not sample or SCORED in sample:
            return sample
        eos = self.task.target_dictionary.eos() if self.cfg.ignore_eos else None
        positions = self.scored_positions(sample["target"], ignored=eos)
        masks = sample.get("constraint_masks")
        if masks is not None or self.span is not None:
            target = sample["target"].reshape(-1)[positions]
            possible = losses.may_be_predicted(target, masks, positions, self.span)
            if training:
                check_targets(possible, target, positions, sample)
            positions = positions[possible]
        return {**sample, SCORED: positions}

    def scored(self, sample: dict, training: bool) -> tuple[dict, Tensor]:
        """The batch that the model sees, and the positions that have a loss: int64[N]."""
        sample = dict(self.prepare(sample, training))
        positions = sample.pop(SCORED)
        if not self.cfg.use_rdrop:
            return sample, positions
        return repeat_batch(sample), torch.cat([positions, positions + sample["target"].numel()])

    def loss_and_log(self, model, sample, positions, logits, rows, update_num):
        """What ``forward`` returns. Args: logits, rows: see ``scored_logits``."""
        loss, counts = self.compute_loss(logits, rows, positions, sample, update_num)
        sample_size = sample["target"].size(0) if self.cfg.sentence_avg else counts.pop("kept")
        log = {
            "loss": loss.detach(),
            "nll_loss": counts["nll_loss"],
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
        }
        if self.cfg.report_accuracy:
            log.update(n_correct=counts["n_correct"], total=counts["total"])
        return loss, sample_size, log | counts.get("by_task", {})

    def pretraining_step(self, model, samples, update_num):
        """Batches of different kinds (image-text pairs; text, images, detection) count the same:
        each is averaged, but for empty ones. In a validation all tokens count the same."""
        training = is_training(model)
        first = samples[0]
        if first and self.cfg.sample_patch_num > 0 and training:
            net_input = {**first["net_input"], "sample_patch_num": self.cfg.sample_patch_num}
            first = {**first, "net_input": net_input}
        numbered = enumerate((first, *samples[1:]), 1)
        scored = {number: self.scored(sample, training) for number, sample in numbered if sample}
        asked = [(model_inputs(model, sample), places) for sample, places in scored.values()]
        found = dict(zip(scored, scored_logits_of_all(model, asked)))
        parts = {
            number: self.loss_and_log(model, *scored[number], *found[number], update_num)
            for number in scored
        }
        logs = {number: log for number, (_, _, log) in parts.items()}
        sizes = {number: max(size, 1) if training else 1 for number, (_, size, _) in parts.items()}
        loss = sum(parts[number][0] / sizes[number] for number in parts)
        sample_size = 1 if training else sum(size for _, size, _ in parts.values())
        names = dict.fromkeys(key for log in logs.values() for key in log)
        joint = {name: sum(log[name] for log in logs.values()) for name in names}
        nll_loss = sum(log["nll_loss"] / sizes[number] for number, log in logs.items())
        joint |= {"loss": loss.detach(), "nll_loss": nll_loss, "sample_size": sample_size}
        empty = {"loss": loss.new_zeros(()), "sample_size": 0}
        for number in range(1, max(len(samples), 2) + 1):
            log = logs.get(number, empty)
            joint |= {f"{name}_v{number}": log[name] for name in empty}
        return loss, sample_size, joint

    def compute_loss(self, logits, rows, positions, sample, update_num):
        """Summed loss of the scored tokens, and counts: nll_loss, kept, n_correct, total, by_task.

        Args: logits, rows: see ``scored_logits``. positions: int64[N], the scored tokens.
        """
        target = sample["target"].reshape(-1)[positions]
        allowed, conf = self.weights_of(sample, positions, logits)
        tasks = sample.get("tasks")
        counts_right = self.cfg.report_accuracy or tasks is not None

        def log_probabilities(some, at, conf=conf):
            return losses.log_probabilities(some, at_rows(allowed, at), at_rows(conf, at))

        def token_losses(some, at):
            lprobs = log_probabilities(some, at, None if self.linear else conf)
            columns = torch.stack(self.token_losses(lprobs, target[at], at_rows(allowed, at)), -1)
            if self.linear and conf is not None:  # a pass over the vocabulary less
                columns = columns * conf[at, None]
            if not counts_right:
                return columns
            right = torch.zeros_like(target[at])
            if not torch.is_grad_enabled():  # the gradient, for which it is made again, needs none
                right = losses.most_probable(lprobs, target[at])
            return torch.cat([columns, right[:, None].to(columns)], -1)

        columns = losses.by_rows(token_losses, logits, rows)
        loss, nll, rank = columns.unbind(-1)[:3]
        kept = self.kept_tokens(rank, update_num)
        total_loss = loss[kept].sum()
        if self.cfg.use_rdrop:
            pairs = kept.view(2, -1).T

            def divergence(some, at):
                return losses.symmetric_divergence(log_probabilities(some, pairs[at]))[:, None]

            of_pairs = losses.by_rows(divergence, logits, pairs if rows is None else rows[pairs])
            total_loss = total_loss + self.cfg.reg_alpha * of_pairs.sum()
        counts = {"nll_loss": nll[kept].sum().detach(), "kept": len(kept)}
        if self.cfg.report_accuracy:
            counts.update(n_correct=columns[:, 3].sum().detach(), total=len(target))
        if tasks is not None:
            of_tokens = tasks[positions // sample["target"].size(1)]
            # conf: which the log-probabilities were multiplied by
            plain = nll if conf is None else nll / conf.clamp(min=1e-6)
            counts["by_task"] = self.by_task(of_tokens, plain, columns[:, 3])
        return total_loss, counts

    def weights_of(
        self, sample: dict, positions: Tensor, logits: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Which tokens may be predicted at the positions, bool[N, V], and their confidence,
        float[N]; None where nothing is restricted or weighed."""
        shape = len(positions), logits.size(-1)
        masks, conf = sample.get("constraint_masks"), sample.get("conf")
        if masks is not None:
            masks = masks.reshape(-1, shape[1])[positions]
        if conf is not None:
            conf = conf.repeat_interleave(sample["target"].numel() // len(conf))[positions]
        return losses.allowed_tokens(shape, masks, self.span, logits.device), conf

    def by_task(self, tasks: Tensor, nll: Tensor, correct: Tensor) -> dict[str, Tensor]:
        """Sums for the log of every task, which are ``tasks`` (int64[tokens])."""
        names = self.task.parts
        counts = torch.stack([nll, correct, torch.ones_like(nll)]).detach()
        sums = counts.new_zeros(3, len(names)).index_add_(1, tasks, counts)
        return {
            f"_{name}_{count}": sums[row, column]
            for column, name in enumerate(names)
            for row, count in enumerate(("nll", "correct", "tokens"))
        }

    def token_losses(self, lprobs, target, allowed) -> tuple[Tensor, ...]:
        """Loss, negative log-likelihood and what tokens are ranked by; float[N] each."""
        loss, nll = losses.label_smoothed(lprobs, target, self.cfg.label_smoothing, allowed)
        return loss, nll, loss

    def kept_tokens(self, rank: Tensor, update_num: int) -> Tensor:
        """int64[kept]: the tokens whose loss counts in this update."""
        if self.cfg.drop_worst_ratio > 0 and update_num > self.cfg.drop_worst_after:
            return losses.keep_tokens(rank, self.cfg.drop_worst_ratio, paired=self.cfg.use_rdrop)
        return torch.arange(len(rank), device=rank.device)


@register_criterion("adjust_label_smoothed_encouraging_loss", dataclass=EncouragingConfig)
class AdjustLabelSmoothedEncouragingLossCriterion(AdjustLabelSmoothedCrossEntropyCriterion):
    """Cross-entropy plus a bonus for tokens that are predicted well already."""

    config = EncouragingConfig
    linear = False

    cfg: EncouragingConfig

    def __init__(self, task, **options) -> None:
        super().__init__(task, **options)
        if not 0 < self.cfg.log_end <= 1:
            raise UserError(f"--log-end is a probability in (0, 1], found {self.cfg.log_end}")

    def token_losses(self, lprobs, target, allowed):
        epsilon = self.cfg.label_smoothing
        loss, nll = losses.label_smoothed(lprobs, target, epsilon, allowed)
        return loss + losses.encouragement(lprobs, target, epsilon, self.cfg.log_end), nll, loss

    def kept_tokens(self, rank, update_num):
        kept = super().kept_tokens(rank, update_num)
        if update_num <= self.cfg.drop_best_after:
            return kept
        # as upstream: without --drop-best-ratio the tokens are still sorted, both passes of R-Drop
        # together, which then compares different tokens (tests/parity/test_criterion.py, el_rdrop)
        ratio = self.cfg.drop_best_ratio
        paired = self.cfg.use_rdrop and ratio > 0
        return kept[losses.keep_tokens(rank[kept], ratio, paired, drop_worst=False)]


def is_training(model) -> bool:
    """Any function that returns logits may stand for a model; then it is being trained."""
    return getattr(model, "training", True)


def at_rows(values: Tensor | None, rows: Tensor | slice) -> Tensor | None:
    return None if values is None else values[rows]


def repeat_batch(sample: dict) -> dict:
    """A batch that holds another one twice, one copy after the other, for two passes with different
    dropout. Both copies show the same images, which the stem sees once."""
    count = len(sample["target"])
    if IMAGE_ROWS not in sample:
        images = torch.arange(count, device=sample["target"].device)
        facts = {**sample.get(FACTS, {}), "num_images": count}
        sample = {**sample, IMAGE_ROWS: images, FACTS: facts}

    def twice(value):
        if isinstance(value, dict):
            return {key: twice(item) for key, item in value.items()}
        return value.repeat(2, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) else value

    doubled = twice(sample)
    return {**doubled, "ntokens": 2 * sample["ntokens"], "nsentences": 2 * sample["nsentences"]}


def check_targets(possible: Tensor, target: Tensor, positions: Tensor, sample: dict) -> None:
    """A target outside its allowed tokens has an infinite loss: stop with the sample's name."""
    wrong = (~possible).nonzero()[:, 0]
    if len(wrong) == 0:
        return
    first = wrong[0]
    row, ids = int(positions[first]) // sample["target"].size(1), sample.get("id")
    name = f"row {row} of the batch" if ids is None else ids[row % len(ids)]
    raise UserError(
        f"sample {name}: target token {int(target[first])} is not among the tokens that its answers"
        " may use; is the answer missing in the answer file, or --constraint-range too narrow?"
    )
