"""What a run shows while it trains: samples with their images in TensorBoard and Weights & Biases,
a log file."""

import logging
import os
from typing import Any

import torch
from fairseq.logging import progress_bar

from ofa.data.images import mean_and_std

SHOWN = 4  # rows of the first validation batch, so that the same images come every time
LOG_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


class ValidationSamples:
    """The first rows of a validation: images, predictions and references.

    Args: imagenet: images are normalized by ImageNet's mean and std.
    """

    # set on the first rank of a training
    logdir: str | None = None  # of TensorBoard
    wandb_project: str | None = None
    name = "sample"  # before the numbers, where several tasks show theirs

    def __init__(self, imagenet: bool = False):
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in mean_and_std(imagenet))
        self.rows: list[tuple[torch.Tensor | None, str, list[str]]] = []

    def add(self, sample: dict[str, Any], texts: list[str], references: list[list[str]]) -> None:
        """Keep rows of a batch until there are enough; none where nothing shows them."""
        images = sample["net_input"].get("patch_images")
        wanted = SHOWN - len(self.rows) if self.logdir or self.wandb_project else 0
        for row in range(min(wanted, len(texts))):
            image = None
            if images is not None:
                pixels = images[row].detach().float().cpu() * self.std + self.mean
                image = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
            self.rows.append((image, texts[row], references[row]))

    def show(self, step: int) -> None:
        rows, self.rows = self.rows, []
        if rows and self.logdir and progress_bar.SummaryWriter is not None:
            self.show_in_tensorboard(rows, step)
        if rows and self.wandb_project and progress_bar.wandb is not None:
            self.show_in_wandb(rows, step)

    def show_in_wandb(self, rows, step: int) -> None:
        wandb = progress_bar.wandb  # whose run fairseq has begun
        table = [
            [image if image is None else wandb.Image(image.permute(1, 2, 0).numpy()), text]
            + ["\n".join(references)]
            for image, text, references in rows
        ]
        columns = ["image", "prediction", "references"]
        wandb.log({f"{self.name}s": wandb.Table(columns=columns, data=table)}, step=step)

    def show_in_tensorboard(self, rows, step: int) -> None:
        assert self.logdir is not None
        writers = progress_bar._tensorboard_writers  # which fairseq closes at the end
        if "samples" not in writers:
            writers["samples"] = progress_bar.SummaryWriter(os.path.join(self.logdir, "samples"))
        writer = writers["samples"]
        for number, (image, prediction, references) in enumerate(rows, 1):
            if image is not None:
                writer.add_image(f"{self.name} {number}", image, step)
            text = f"**{prediction}**\n\n" + "\n".join(f"* {reference}" for reference in references)
            writer.add_text(f"{self.name} {number}", text, step)
        writer.flush()


def begin_to_show(cfg, first_rank: bool) -> None:
    """Point the samples to where they are shown, and every log line to ``--log-file`` as well.

    Stock fairseq opens the file anew in every epoch, writes each line once more, and leaves out
    most loggers.
    """
    ValidationSamples.logdir = cfg.common.tensorboard_logdir if first_rank else None
    ValidationSamples.wandb_project = cfg.common.wandb_project if first_rank else None
    if cfg.common.log_file is not None:
        handler = logging.FileHandler(cfg.common.log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter(LOG_FORMAT, "%Y-%m-%d %H:%M:%S"))
        logging.getLogger().addHandler(handler)
        cfg.common.log_file = None
