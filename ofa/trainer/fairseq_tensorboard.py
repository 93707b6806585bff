"""What a run shows while it trains: samples with their images in TensorBoard, a log file."""

import logging
import os
from typing import Any

import torch
from fairseq.logging import progress_bar

from ofa.data.images import mean_and_std

SHOWN = 4  # rows of the first validation batch, so that the same images come every time
LOG_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


class TensorBoardSamples:
    """The first rows of a validation: images, predictions and references.

    Args: imagenet: images are normalized by ImageNet's mean and std.
    """

    logdir: str | None = None  # of TensorBoard; set on the first rank of a training
    name = "sample"  # before the numbers, where several tasks show theirs

    def __init__(self, imagenet: bool = False):
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in mean_and_std(imagenet))
        self.rows: list[tuple[torch.Tensor | None, str, list[str]]] = []

    def add(self, sample: dict[str, Any], texts: list[str], references: list[list[str]]) -> None:
        """Keep rows of a batch until there are enough; without TensorBoard none are kept."""
        images = sample["net_input"].get("patch_images")
        for row in range(min(SHOWN - len(self.rows), len(texts)) if self.logdir else 0):
            image = None
            if images is not None:
                pixels = images[row].detach().float().cpu() * self.std + self.mean
                image = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
            self.rows.append((image, texts[row], references[row]))

    def show(self, step: int) -> None:
        rows, self.rows = self.rows, []
        if not (rows and self.logdir) or progress_bar.SummaryWriter is None:
            return
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
    """Point the samples to TensorBoard's folder, and every log line to ``--log-file`` as well.

    Stock fairseq opens the file anew in every epoch, writes each line once more, and leaves out
    most loggers.
    """
    TensorBoardSamples.logdir = cfg.common.tensorboard_logdir if first_rank else None
    if cfg.common.log_file is not None:
        handler = logging.FileHandler(cfg.common.log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter(LOG_FORMAT, "%Y-%m-%d %H:%M:%S"))
        logging.getLogger().addHandler(handler)
        cfg.common.log_file = None
