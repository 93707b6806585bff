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
from fairseq.dataclass import ChoiceEnum
from fairseq.utils import strip_pad
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ofa.checkpoints.read import read
from ofa.criterions import losses
from ofa.criterions.caption_reward import CaptionReward, RewardMonitor
from ofa.criterions.fairseq_criterion import CriterionConfig, OFACriterion, scored_logits
from ofa.data.collate import FACTS
from ofa.errors import UserError
from ofa.io.flags import option
from ofa.models.inference_weights import network_inputs, unwrapped
from ofa.task.text import JOIN

logger = logging.getLogger(__name__)

REFERENCES = "references"  # of a batch: texts that each row's captions are compared with
BASELINES = ("leave-one-out", "greedy")
# of CLIP's cosine, as upstream (CLIPScore, Hessel et al. 2021), but negative cosines stay negative
CLIP_WEIGHT = 2.5


@dataclass
class SamplingConfig(CriterionConfig):
    """What every criterion that rewards samples has."""

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
    """CIDEr optimization: sampled captions are trained by what they earn above a baseline.

    Works with any model that returns (logits float[B, T, V], extra) and any generator in
    ``task.scst_generator``. A task whose declaration has a ``reward`` of its own is optimized for
    that, without document frequencies. BatchNorm follows --freeze-resnet alone: the model stays in
    the mode it is in.
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

    def __init__(self, task, **options) -> None:
        super().__init__(task, **options)
        self.reward = self.make_reward()
        self.watch = RewardMonitor(self.cfg.scst_patience)
        self.baseline = str(self.cfg.scst_baseline)
        self.start = ReferenceModel(self.cfg.scst_kl_model) if self.cfg.scst_kl_weight else None
        self.greedy_generator: Any = None
        self.announced = False

    def make_reward(self) -> CaptionReward | None:
        """What captions earn; None if the task has a reward of its own."""
        metrics = getattr(getattr(self.task, "spec", None), "metrics", None)
        if getattr(metrics, "reward", None) is not None:
            return None
        weights = self.cfg.scst_cider_weight, self.cfg.scst_bleu_weight
        return CaptionReward(self.cfg.scst_cider_cached_tokens, *weights)

    def prepare(self, sample, training):
        """Reads the references of each row, unless the task has a reward of its own."""
        if not sample or self.reward is None or REFERENCES in sample:
            return sample
        return {**sample, REFERENCES: list(map(self.references, sample["target"]))}

    def forward(self, model, sample, update_num=0, reduce=True):
        """Loss of sampled captions. ``sample["target"]`` holds the references, joined by ``&&``.

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
        log = {"loss": loss.detach(), "score": float(scores.sum()), **counts}
        return loss, sample_size, {**log, "nsentences": nsentences, "sample_size": sample_size}

    # ------------------------------------------------ what is sampled, and what it earns

    def sample_captions(self, model, sample) -> tuple[list[list[Tensor]], list[Tensor] | None]:
        """Tokens of the sampled captions of each image, and of its greedy one if that is wanted."""
        generator = getattr(self.task, "scst_generator", None)
        if generator is None:
            raise UserError(
                "scst_reward_criterion samples captions: expected --scst, and --scst-args such as "
                '\'{"beam":5,"max_len_b":16,"no_repeat_ngram_size":3}\''
            )
        if self.baseline == "leave-one-out":
            found, greedy = generator.generate([model], sample), None
        else:
            if self.greedy_generator is None:
                self.greedy_generator = greedy_version(generator, self.task, model)
            encoded = generator.encode([model], sample)
            found = generator.generate([model], sample, encoded=encoded)
            best = self.greedy_generator.generate([model], sample, encoded=encoded)
            greedy = [hypotheses[0]["tokens"] for hypotheses in best]
        captions = [[hypothesis["tokens"] for hypothesis in hypotheses] for hypotheses in found]
        if greedy is None and max(map(len, captions)) < 2:
            remedy = 'give "beam":5, or compare with the greedy caption (--scst-baseline=greedy)'
            if generator.beam > 1:
                remedy = f'a warning above says why, as "beam" is {generator.beam}'
            raise UserError(
                "--scst-args: expected at least two samples per image to compare with each other,"
                f" found one; {remedy}"
            )
        return captions, greedy

    def evaluate(self, captions, greedy, sample, training: bool) -> tuple[np.ndarray, Tensor]:
        """Rewards float64[all captions], and how far they are above the baseline, float64[B, K]."""
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
        rows = torch.from_numpy(scores).split([len(some) for some in captions])
        table = pad_sequence(rows, batch_first=True, padding_value=float("nan"))
        better = losses.leave_one_out(table) if greedy is None else losses.better_than(table, best)
        return scores, better

    def rewards(
        self, answers: list[Tensor], images: list[int], sample
    ) -> tuple[np.ndarray, Callable[[], str]]:
        """Rewards float64[answers] (of rows ``images``), and why they may be useless."""
        reward = self.reward
        if reward is None:
            start = "a checkpoint that was finetuned for this task (--finetune-from-model)"
            hint = f"does training start from {start}?"
            return self.task.rewards(answers, images, sample), lambda: hint
        texts = list(map(self.decode, answers))
        found = texts, self.prepare(sample, training=True)[REFERENCES], images
        return reward(*found), lambda: reward.diagnosis(*found)

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
        """Summed loss of the sampled tokens, and counts: ntokens, and kl if that is in the loss."""
        device, bos = sample["target"].device, self.task.target_dictionary.bos()
        target, previous = losses.batch_of_samples(captions, bos, self.padding_idx)
        positions = self.scored_positions(target)
        earned = advantage.to(target.device)[:, :, None].expand(target.shape)
        made = previous, positions, target.view(-1)[positions], earned.reshape(-1)[positions]
        previous, positions, target, earned = (x.to(device, non_blocking=True) for x in made)
        net_input = self.net_input(model, sample, previous)
        logits, rows = scored_logits(model, net_input, positions)
        allowed = losses.allowed_tokens((len(target), logits.size(-1)), None, self.span, device)
        start = None if self.start is None else self.start.logits(model, net_input, positions)

        def log_probabilities(some, at):
            return losses.log_probabilities(some, None if allowed is None else allowed[at])

        def token_losses(some, at):
            lprobs = log_probabilities(some, at)
            columns = [losses.rewarded(lprobs, target[at], earned[at])]
            if start is not None:
                kl = losses.kl_to_reference(lprobs, log_probabilities(start[at], at))
                columns.append(kl.to(columns[0]))
            return torch.stack(columns, -1)

        sums = losses.by_rows(token_losses, logits, rows).sum(0)
        counts: dict = {"ntokens": len(target)}
        if start is not None:
            counts["kl"] = sums[1].detach()
        return sums[0] + self.cfg.scst_kl_weight * sums[1:].sum(), counts

    @staticmethod
    def net_input(model, sample, previous: Tensor) -> dict:
        """Arguments of the model for K captions per image. Args: previous: int64[B, K, T]."""
        net_input = dict(network_inputs(model, sample))
        net_input.pop("prev_output_tokens", None)  # of the references
        if FACTS in net_input:
            net_input[FACTS] = {**net_input[FACTS], "target_padding": None}
        if not getattr(unwrapped(model), "shares_encoding", False):
            net_input = {
                name: value.repeat_interleave(previous.size(1), dim=0)
                if isinstance(value, Tensor)
                else value
                for name, value in net_input.items()
            }
        return {**net_input, "prev_output_tokens": previous.flatten(0, 1)}

    def announce(self, model, sample) -> None:
        """Say once how this run optimizes, and what happens to batch norm."""
        self.announced = True
        reward = self.reward_name
        if self.reward is not None:
            reward = f"{self.reward.cider_weight:g} CIDEr-D + {self.reward.bleu_weight:g} BLEU-4"
        message = "%s: baseline %s, reward %s, divergence from stage 1 weighs %g"
        logger.info(message, self.purpose, self.baseline, reward, self.cfg.scst_kl_weight)
        keeps_marks = getattr(getattr(self.task, "cfg", None), "keep_punctuation", False)
        if keeps_marks and self.reward is not None and not self.reward.counts_marks:
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
    """The model that CIDEr optimization started from, neither trained nor saved (no module).

    Args: path: its checkpoint. Raises: UserError if there is none.
    """

    def __init__(self, path: str | None):
        if not path:
            raise UserError(
                "--scst-kl-weight: expected --scst-kl-model, the checkpoint of stage 1 to stay"
                " close to"
            )
        self.path, self.state = path, read(path).weights
        self.model: nn.Module | None = None

    @torch.no_grad()
    def logits(self, model: nn.Module, net_input: dict, positions: Tensor) -> Tensor:
        """Its logits float[N, V]; shape, device and precision are those of the trained model."""
        if self.model is None:
            self.model = copy.deepcopy(unwrapped(model)).requires_grad_(False).eval()
            self.model.load_state_dict(self.state)
            self.state = {}
            logger.info("%s: the model stays close to this one", self.path)
        logits, rows = scored_logits(self.model, net_input, positions)
        return logits if rows is None else logits[rows]


@register_criterion("clip_scst_reward_criterion", dataclass=SamplingConfig)
class ClipScstRewardCriterion(ScstRewardCriterion):
    """Stage 2 of text to image: the reward is how well a sampled image fits its caption, by CLIP or
    another scorer. Works with every task that has ``rewards_of_fit``."""

    config = SamplingConfig
    purpose = "optimization of images"
    reward_name = f"{CLIP_WEIGHT} x how well image and caption fit"

    def make_reward(self) -> None:
        """None of captions: images are rewarded by the task's scorer."""
        if not hasattr(self.task, "rewards_of_fit"):
            raise UserError(
                "clip_scst_reward_criterion rewards images: expected --task=image_gen, found"
                f" {type(self.task).__name__}"
            )

    def evaluate(self, captions, greedy, sample, training: bool) -> tuple[np.ndarray, Tensor]:
        """As for captions; in float32, as upstream."""
        scores, advantage = super().evaluate(captions, greedy, sample, training)
        return scores, advantage.float()

    def rewards(self, answers, images, sample) -> tuple[np.ndarray, Callable[[], str]]:
        fit = self.task.rewards_of_fit(answers, images, sample).double().numpy()
        hint = "do the weights of CLIP fit, and is the tokenizer that of the model's training?"
        return CLIP_WEIGHT * fit, lambda: hint


def greedy_version(generator, task, model):
    """A generator with the options of another that takes the likeliest token at each step."""
    off = dict(beam=1, sampling=False, sampling_topk=-1, sampling_topp=-1.0, diverse_beam_groups=-1)
    return task.build_generator([model], Namespace(**vars(replace(generator.options, **off))))
