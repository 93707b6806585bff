"""Stage 2 of text to image: sampled images become more probable if they fit their caption better
than the others.

The reward is 2.5 x the cosine of CLIP's features of image and caption, or what another scorer
says (``task.image_text_scorer``); all else is that of CIDEr optimization.
"""

from collections.abc import Callable

import numpy as np
from fairseq.criterions import register_criterion
from torch import Tensor

from ofa.criterions.fairseq_scst import SamplingConfig, ScstRewardCriterion
from ofa.errors import UserError

# of the cosine, as upstream (CLIPScore, Hessel et al. 2021), but negative cosines stay
# negative
WEIGHT = 2.5


@register_criterion("clip_scst_reward_criterion", dataclass=SamplingConfig)
class ClipScstRewardCriterion(ScstRewardCriterion):
    """Works with every task that draws: it has ``rewards_of_fit``, see
    ``ofa.tasks.fairseq_image_generation``."""

    config = SamplingConfig
    purpose = "optimization of images"
    reward_name = f"{WEIGHT} x how well image and caption fit"

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
