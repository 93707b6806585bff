"""Stage 2 of text to image: sampled images become more probable if they fit their caption better
than the others.

The reward is 2.5 x the cosine of CLIP's features of image and caption, or what another scorer
says (``task.image_text_scorer``); all else is that of CIDEr optimization.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import numpy as np
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II
from torch import Tensor

from ofa.criterions.fairseq_scst import BASELINES, ScstRewardCriterion
from ofa.errors import UserError
from ofa.io.flags import option

# of the cosine, as upstream (CLIPScore, Hessel et al. 2021), but negative cosines stay
# negative
WEIGHT = 2.5


@dataclass
class ClipScstConfig(FairseqDataclass):
    ignore_prefix_size: int = option(0, "number of first target tokens without loss")
    sentence_avg: bool = II("optimization.sentence_avg")
    constraint_range: Optional[str] = option(
        None, "START,END: samples have only these token ids (without END) and 0 to 3"
    )
    scst_baseline: ChoiceEnum(BASELINES) = option(  # type: ignore[valid-type]  # fairseq reads it
        "leave-one-out",
        "what a sample has to beat: the mean of the other samples of its caption, or the likeliest"
        " image",
    )
    scst_kl_weight: float = option(
        0.0, "weight of the divergence from --scst-kl-model per token; 0 = none"
    )
    scst_kl_model: Optional[str] = option(
        None, "checkpoint that the model should stay close to: that of stage 1"
    )
    scst_patience: int = option(
        50, "batches in a row without a finite reward that end the run; 0 = never"
    )


@register_criterion("clip_scst_reward_criterion", dataclass=ClipScstConfig)
class ClipScstRewardCriterion(ScstRewardCriterion):
    """Works with every task that draws: it has ``rewards_of_fit``, see
    ``ofa.tasks.fairseq_image_generation``."""

    config = ClipScstConfig
    purpose = "optimization of images"
    reward_name = f"{WEIGHT} x how well image and caption fit"

    def __init__(
        self,
        task,
        sentence_avg,
        ignore_prefix_size=0,
        constraint_range=None,
        scst_baseline="leave-one-out",
        scst_kl_weight=0.0,
        scst_kl_model=None,
        scst_patience=50,
    ):
        super().__init__(
            task,
            None,
            sentence_avg,
            ignore_prefix_size,
            constraint_range,
            scst_baseline,
            scst_kl_weight=scst_kl_weight,
            scst_kl_model=scst_kl_model,
            scst_patience=scst_patience,
        )

    def make_reward(self, *settings) -> None:
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

    def rewards(
        self, answers: list[Tensor], images: list[int], sample
    ) -> tuple[np.ndarray, Callable[[], str]]:
        """Rewards float64[answers], and a function that says why they may be useless. Args:
        images: row of each answer."""
        rewards = WEIGHT * self.task.rewards_of_fit(answers, images, sample).double().numpy()
        return (
            rewards,
            lambda: (
                "do the weights of CLIP fit, and are the images those of the tokenizer that the"
                " model was trained with?"
            ),
        )
