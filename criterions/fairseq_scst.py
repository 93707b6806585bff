"""CIDEr optimization (self-critical sequence training) as a fairseq criterion.

Captions are sampled from the model in evaluation mode, each earns a reward, and those that earn
more than a baseline become more probable. An image is encoded once to sample and once to learn,
whatever the number of samples.
"""

import copy
import logging
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np
import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.utils import strip_pad
from omegaconf import II
from torch import Tensor, nn

from ofa.checkpoints.contents import upstream_state_dict
from ofa.checkpoints.delta import load_complete
from ofa.criterions import losses, scst
from ofa.criterions.caption_reward import CaptionReward, RewardMonitor
from ofa.criterions.fairseq_criterion import OFACriterion, scored_logits
from ofa.errors import UserError
from ofa.io.flags import option
from ofa.models.generation.options import parse_range
from ofa.models.inference_weights import unwrapped
from ofa.task.text import JOIN

logger = logging.getLogger(__name__)

BASELINES = ("leave-one-out", "greedy")


@dataclass
class SamplingConfig(FairseqDataclass):
    """What every criterion that rewards samples has."""

    ignore_prefix_size: int = option(0, "number of first target tokens without loss")
    sentence_avg: bool = II("optimization.sentence_avg")
    constraint_range: Optional[str] = option(
        None, "START,END: samples have only these token ids (without END) and 0 to 3"
    )
    scst_baseline: ChoiceEnum(BASELINES) = option(  # type: ignore[valid-type]  # fairseq reads it
        "leave-one-out", "what a sample has to beat: the mean of the others, or the greedy one"
    )
    scst_kl_weight: float = option(0.0, "weight of the divergence from --scst-kl-model per token")
    scst_kl_model: Optional[str] = option(None, "checkpoint of stage 1 to stay close to")
    scst_patience: int = option(50, "batches in a row without reward that end the run; 0 = never")


@dataclass
class ScstConfig(SamplingConfig):
    scst_cider_cached_tokens: str = option(
        "coco-train-words.p", "document frequencies of CIDEr-D; 'ofa cider-df build' makes them"
    )
    scst_cider_weight: float = option(1.0, "weight of CIDEr-D (0 to 10) in the reward")
    scst_bleu_weight: float = option(0.0, "weight of BLEU-4 (0 to 1) in the reward")


@register_criterion("scst_reward_criterion", dataclass=ScstConfig)
class ScstRewardCriterion(OFACriterion):
    """Works with any model that returns (logits float[B, T, V], extra) and any generator in
    ``task.scst_generator``.

    A task whose declaration has a ``reward`` of its own is optimized for that; it needs no document
    frequencies. BatchNorm follows --freeze-resnet alone: the loss is computed in the mode the model
    is in.
    """

    config = ScstConfig
    averages = {
        **OFACriterion.averages,
        "score": ("nsentences", "nsentences"),
        "kl": ("ntokens", "ntokens"),
    }
    optional = ("kl",)
    purpose = "CIDEr optimization"
    reward_name = "the task's own"  # unless captions are rewarded

    cfg: Any  # a SamplingConfig, and what the rewards of a subclass ask for

    def __init__(self, task, **options) -> None:
        super().__init__(task, **options)
        self.reward = self.make_reward()
        self.watch = RewardMonitor(self.cfg.scst_patience)
        self.span = parse_range(self.cfg.constraint_range, "--constraint-range")
        self.baseline = str(self.cfg.scst_baseline)
        self.start = ReferenceModel(self.cfg.scst_kl_model) if self.cfg.scst_kl_weight else None
        self.greedy_generator: Any = None
        self.announced = False

    def make_reward(self) -> CaptionReward | None:
        """What captions earn; None if the task has a reward of its own."""
        metrics = getattr(getattr(self.task, "spec", None), "metrics", None)
        if getattr(metrics, "reward", None) is not None:
            return None
        cfg = self.cfg
        return CaptionReward(
            cfg.scst_cider_cached_tokens, cfg.scst_cider_weight, cfg.scst_bleu_weight
        )

    def forward(self, model, sample, update_num=0, reduce=True):
        """Loss of sampled captions.

        Args:
            sample: the batch dict of ``ofa.data.collate``; ``target`` holds the references, joined
                by ``&&``.
            update_num, reduce: part of the interface; the loss is always a sum.

        Returns: summed loss float64, sample size to divide the gradient by, values for the log.
        Raises: UserError if rewards stay useless while training.
        """
        if model.training and not self.announced:
            self.announce(model, sample)
        captions, greedy = self.sample_captions(model, sample)
        scores, advantage = self.evaluate(captions, greedy, sample, model.training)
        loss, counts = self.compute_loss(model, sample, captions, advantage)
        nsentences = sum(map(len, captions))
        sample_size = nsentences if self.cfg.sentence_avg else counts["ntokens"]
        log = {
            "loss": loss.detach(),
            "score": float(scores.sum()),
            "nsentences": nsentences,
            "sample_size": sample_size,
        }
        return loss, sample_size, {**log, **counts}

    # ------------------------------------------------ what is sampled, and what it earns

    def sample_captions(self, model, sample) -> tuple[list[list[Tensor]], list[Tensor] | None]:
        """Tokens of the sampled captions of each image, and those of its greedy caption if that
        is the baseline."""
        generator = getattr(self.task, "scst_generator", None)
        if generator is None:
            raise UserError(
                "scst_reward_criterion samples captions: expected --scst, and --scst-args such as "
                '\'{"beam":5,"max_len_b":16,"no_repeat_ngram_size":3}\''
            )
        if self.baseline == "leave-one-out":
            found, greedy = generator.generate([model], sample), None
        else:
            self.greedy_generator = self.greedy_generator or greedy_version(
                generator, self.task, model
            )
            encoded = generator.encode([model], sample)
            found = generator.generate([model], sample, encoded=encoded)
            best = self.greedy_generator.generate([model], sample, encoded=encoded)
            greedy = [hypotheses[0]["tokens"] for hypotheses in best]
        captions = [[hypothesis["tokens"] for hypothesis in hypotheses] for hypotheses in found]
        if greedy is None and max(map(len, captions)) < 2:
            raise UserError(
                "--scst-args: expected at least two samples per image to compare with each other,"
                ' found one; give "beam":5, or compare with the greedy caption'
                " (--scst-baseline=greedy)"
            )
        return captions, greedy

    def evaluate(self, captions, greedy, sample, training: bool) -> tuple[np.ndarray, Tensor]:
        """Rewards float64[all captions], and how much they are above the baseline, float64[B, K]
        on the CPU."""
        images = [image for image, some in enumerate(captions) for _ in some]
        answers = [tokens for some in captions for tokens in some]
        first_greedy = len(answers)
        if greedy is not None:
            images, answers = [*images, *range(len(greedy))], [*answers, *greedy]
        rewards, diagnosis = self.rewards(answers, images, sample)
        scores, best = rewards[:first_greedy], torch.from_numpy(rewards[first_greedy:])
        if training and self.watch.should_stop(scores):
            raise UserError(
                f"optimization of samples: {self.watch.patience} batches in a row earned no reward,"
                " or none that is finite; " + diagnosis()
            )
        table = torch.full(
            (len(captions), max(map(len, captions))), float("nan"), dtype=torch.float64
        )
        places = torch.tensor([len(some) for some in captions])[:, None] > torch.arange(
            table.size(1)
        )
        table[places] = torch.from_numpy(scores)
        return scores, (
            scst.leave_one_out(table) if greedy is None else scst.better_than(table, best)
        )

    def rewards(
        self, answers: list[Tensor], images: list[int], sample
    ) -> tuple[np.ndarray, Callable[[], str]]:
        """Rewards float64[answers], and a function that says why they may be useless. Args:
        images: row of each answer."""
        reward = self.reward
        if reward is None:
            hint = (
                "does training start from a checkpoint that was finetuned for this task"
                " (--finetune-from-model)?"
            )
            return self.task.rewards(answers, images, sample), lambda: hint
        texts = list(map(self.decode, answers))
        references = [self.references(target) for target in sample["target"]]
        return reward(texts, references, images), lambda: reward.diagnosis(
            texts, references, images
        )

    def decode(self, tokens: Tensor) -> str:
        return self.task.bpe.decode(self.task.target_dictionary.string(tokens.int().cpu())).strip()

    def references(self, target: Tensor) -> list[str]:
        """Captions of a target, at least one; an empty one (``a cat&&``) is no reference."""
        texts = self.decode(strip_pad(target, self.padding_idx)).split(JOIN)
        return [text for text in texts if text.strip()] or [""]

    # ---------------------------------------------------------------- the loss

    def compute_loss(
        self, model, sample, captions: list[list[Tensor]], advantage: Tensor
    ) -> tuple[Tensor, dict]:
        """Summed loss of the sampled tokens, and counts: ntokens, and kl if it is part of the
        loss."""
        device, bos = sample["target"].device, self.task.target_dictionary.bos()
        target, previous = scst.batch_of_samples(captions, bos, self.padding_idx)
        target, previous = target.to(device), previous.to(device)
        net_input = self.net_input(model, sample, previous)
        scored = target != self.padding_idx
        scored[:, :, : self.cfg.ignore_prefix_size] = False
        positions = scored.view(-1).nonzero()[:, 0]
        logits, rows = scored_logits(model, net_input, positions)
        earned = advantage.to(device)[:, :, None].expand(target.shape).reshape(-1)[positions]
        target = target.view(-1)[positions]
        allowed = losses.allowed_tokens((len(target), logits.size(-1)), None, self.span, device)
        start = None if self.start is None else self.start.logits(model, net_input, positions)

        def log_probabilities(some, at):
            return losses.log_probabilities(some, None if allowed is None else allowed[at])

        def token_losses(some, at):
            lprobs = log_probabilities(some, at)
            columns = [losses.rewarded(lprobs, target[at], earned[at])]
            if start is not None:
                columns.append(
                    losses.kl_to_reference(lprobs, log_probabilities(start[at], at)).to(columns[0])
                )
            return torch.stack(columns, -1)

        sums = losses.by_rows(token_losses, logits, rows).sum(0)
        counts: dict = {"ntokens": len(target)}
        if start is not None:
            counts["kl"] = sums[1].detach()
        return sums[0] + self.cfg.scst_kl_weight * sums[1:].sum(), counts

    @staticmethod
    def net_input(model, sample, previous: Tensor) -> dict:
        """Arguments of the model for K captions per image. Args: previous: int64[B, K, T]."""
        net_input = dict(sample["net_input"])
        if not getattr(unwrapped(model), "shares_encoding", False):
            net_input.pop("prev_output_tokens", None)
            net_input = scst.repeat_rows(net_input, previous.size(1))
        return {**net_input, "prev_output_tokens": previous.flatten(0, 1)}

    def announce(self, model, sample) -> None:
        """Say once how this run optimizes, and what happens to batch norm."""
        self.announced = True
        reward = self.reward_name
        if self.reward is not None:
            reward = f"{self.reward.cider_weight:g} CIDEr-D + {self.reward.bleu_weight:g} BLEU-4"
        logger.info(
            "%s: baseline %s, reward %s, divergence from stage 1 weighs %g",
            self.purpose,
            self.baseline,
            reward,
            self.cfg.scst_kl_weight,
        )
        cfg = getattr(self.task, "cfg", None)
        if (
            self.reward is not None
            and getattr(cfg, "keep_punctuation", False)
            and not self.reward.counts_marks
        ):
            logger.warning(
                "--keep-punctuation: the reward does not see punctuation, for %s has none; count it"
                " by: ofa cider-df build --keep-punctuation",
                self.reward.path,
            )
        if sample["net_input"].get("patch_images") is None:
            return  # nothing goes through it
        moving = [
            m
            for m in model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        ]
        if moving:
            logger.warning(
                "batch norm: the statistics of %d layers move with batches of few images, which has"
                " ruined runs of CIDEr optimization; --freeze-resnet keeps them",
                len(moving),
            )
        else:
            logger.info("batch norm: no statistics move (--freeze-resnet)")


class ReferenceModel:
    """The model that CIDEr optimization started from. Not a module: it is neither trained nor
    saved.

    Args: path: its checkpoint. Raises: UserError if there is none.
    """

    def __init__(self, path: str | None):
        if not path:
            raise UserError(
                "--scst-kl-weight: expected --scst-kl-model, the checkpoint of stage 1 to stay"
                " close to"
            )
        self.path, self.state = path, upstream_state_dict(load_complete(path))
        self.model: nn.Module | None = None

    @torch.no_grad()
    def logits(self, model: nn.Module, net_input: dict, positions: Tensor) -> Tensor:
        """Its logits float[N, V] at those positions; it has the shape, device and precision of
        the model that trains."""
        if self.model is None:
            self.model = copy.deepcopy(unwrapped(model)).requires_grad_(False).eval()
            self.model.load_state_dict(self.state)
            self.state = {}
            logger.info("%s: the model stays close to this one", self.path)
        logits, rows = scored_logits(self.model, net_input, positions)
        return logits if rows is None else logits[rows]


def greedy_version(generator, task, model):
    """A generator with the options of another that takes the likeliest token at each step."""
    off = dict(beam=1, sampling=False, sampling_topk=-1, sampling_topp=-1.0, diverse_beam_groups=-1)
    return task.build_generator([model], Namespace(**vars(replace(generator.options, **off))))
