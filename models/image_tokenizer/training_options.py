"""The options of a training of the small VQ-VAE, apart from torch, which help texts do without."""

from dataclasses import dataclass

from ofa.errors import UserError
from ofa.io.flags import option


@dataclass(frozen=True)
class TrainingOptions:
    """How long (what is reached first of ``updates`` and ``minutes``) and how fast."""

    updates: int | None = option(None, "updates of the training, if not as many as time allows")
    minutes: float | None = option(3.0, "time limit in minutes; 0: none")
    batch_size: int = option(32, "images per update")
    lr: float = option(2e-3, "highest learning rate")
    seed: int = option(1, "seed of all random choices")
    bf16: bool = option(False, "compute in bfloat16")

    def __post_init__(self) -> None:
        for name in ("updates", "minutes", "batch_size", "lr"):
            value, flag = getattr(self, name), f"--{name.replace('_', '-')}"
            if value is not None and not value > 0:
                raise UserError(f"{flag} {value}: expected a positive number; choose one")
        if self.updates is None and self.minutes is None:
            raise UserError(
                "expected --updates or --minutes, found neither; give one, or the training never"
                " ends"
            )
