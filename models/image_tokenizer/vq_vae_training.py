"""Training of the small VQ-VAE: what one update does, how long it continues, how good it became.

Content of update ``i`` depends on (seed, i) alone: with a number of updates two runs on one machine
are equal to the bit, interrupted or not. With a time limit the learning rate follows the clock.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ofa.io.progress import Progress
from ofa.io.safe_load import load_checkpoint
from ofa.models.image_tokenizer.codec import decode_images, device_of, encode_images, to_unit
from ofa.models.image_tokenizer.training_options import TrainingOptions
from ofa.models.image_tokenizer.vq_vae import VQVAE, VQVAEConfig

logger = logging.getLogger(__name__)

WARMUP = 50  # updates
SECONDS_BETWEEN_SAVES = 30.0
COMMITMENT = 0.25  # weight of the distance between vectors and their codes, as in the paper
REGION, REGION_WEIGHT = 4, 2.0  # pixels per side
SMALL = 0.4  # differences (of a range of 2) up to which the loss is quadratic: grain costs little


@dataclass
class TrainingState:
    """Where a training stands. ``seconds``: worked so far, by all calls."""

    update: int = 0
    seconds: float = 0.0

    def progress(self, options: TrainingOptions) -> float:
        """0 at the beginning, 1 at the end."""
        updates = self.update / options.updates if options.updates else 0.0
        time = self.seconds / (60 * options.minutes) if options.minutes else 0.0
        return min(1.0, max(updates, time))


def train(
    tokenizer: VQVAE,
    pixels: Tensor,
    options: TrainingOptions,
    resumed: Mapping | None,
    save: Callable[[dict], None],
) -> TrainingState:
    """Train until the options say that it is enough.

    Args: pixels: uint8[N, 3, S, S]. resumed: what an interrupted call gave ``save``, now and then.
    """
    weights = tokenizer.parameters()
    optimizer = torch.optim.AdamW(weights, options.lr, betas=(0.9, 0.95), weight_decay=0.0)
    state = TrainingState()
    if resumed:
        tokenizer.load_state_dict(resumed["model"])
        optimizer.load_state_dict(resumed["optimizer"])
        state = TrainingState(resumed["update"], resumed["seconds"])
        logger.info("continuing after %d updates and %.0f s", state.update, state.seconds)
    tokenizer.train()
    started = saved = time.monotonic()
    before, shown = state.seconds, round(1000 * state.progress(options))
    with Progress(1000, "training", "‰", initial=shown) as bar:
        while (part := state.progress(options)) < 1:
            error = update(tokenizer, optimizer, pixels, options, state.update, part)
            state.update += 1
            now = time.monotonic()
            state.seconds = before + now - started
            bar.bar.set_postfix(update=state.update, error=f"{error:.4f}", refresh=False)
            bar.what = f"training, update {state.update}, error {error:.4f}"
            bar.update(round(1000 * state.progress(options)) - bar.done)
            if now - saved > SECONDS_BETWEEN_SAVES:
                states = dict(model=tokenizer.state_dict(), optimizer=optimizer.state_dict())
                save({**states, **vars(state)})
                saved = now
    tokenizer.eval()
    return state


def update(
    tokenizer: VQVAE,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    options: TrainingOptions,
    number: int,
    progress: float,
) -> float:
    """One step of the optimizer. Returns: the mean absolute error of its images."""
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + number)
    for group in optimizer.param_groups:
        group["lr"] = options.lr * min(1.0, (number + 1) / WARMUP) * (1 - progress)
    batch = draw_batch(pixels, options.batch_size, number, tokenizer.factor, generator)
    images = to_unit(batch).to(device_of(tokenizer))
    with torch.autocast(images.device.type, torch.bfloat16, enabled=options.bf16):
        output, commitment, _ = tokenizer(images, generator)
    loss = image_loss(output.float(), images) + COMMITMENT * commitment
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
    optimizer.step()
    return F.l1_loss(output.detach().float(), images).item()


def draw_batch(
    pixels: Tensor, batch_size: int, number: int, factor: int, generator: torch.Generator
) -> Tensor:
    """uint8[B, 3, S, S] of whole images; every second time three times as many parts of half the
    side. These cost a quarter each, show shapes at new places, and are what pretraining encodes."""
    size = pixels.size(2)
    side = size // 2 // factor * factor
    if number % 2 and side:
        top, left = torch.randint(size - side + 1, (2,), generator=generator).tolist()
        chosen = torch.randint(len(pixels), (3 * batch_size,), generator=generator)
        batch = pixels[chosen, :, top : top + side, left : left + side]
    else:
        batch = pixels[torch.randint(len(pixels), (batch_size,), generator=generator)]
    return batch.flip(3) if torch.rand((), generator=generator) < 0.5 else batch


def image_loss(output: Tensor, images: Tensor) -> Tensor:
    """Error of the pixels, of the steps between neighbors (which keeps edges where they are) and
    of small regions (colors).

    Large errors count by their size, small ones by their square: a codebook this small must not
    spend codes on grain.
    """

    error = partial(F.smooth_l1_loss, beta=SMALL)
    rows = error(output.diff(dim=2), images.diff(dim=2))
    columns = error(output.diff(dim=3), images.diff(dim=3))
    regions = error(F.avg_pool2d(output, REGION), F.avg_pool2d(images, REGION))
    return error(output, images) + (rows + columns) + REGION_WEIGHT * regions


@dataclass(frozen=True)
class Quality:
    """Of images through their codes."""

    images: int
    error: float  # mean absolute, in gray levels of 255
    psnr: float  # decibels
    codes_used: int  # that occur at all
    perplexity: float  # codes that would be as varied if they were equally common

    def line(self, num_codes: int) -> str:
        return (
            f"reconstruction of {self.images} images kept apart: mean error {self.error:.1f} of"
            f" 255, PSNR {self.psnr:.1f} dB; {self.codes_used} of {num_codes} codes used,"
            f" perplexity {self.perplexity:.0f}"
        )


@torch.no_grad()
def samples(tokenizer: VQVAE, pixels: Tensor) -> Image.Image:
    """Rows of eight of the images uint8[N, 3, S, S], below each row what their codes give back."""
    originals = list(map(Image.fromarray, pixels.permute(0, 2, 3, 1).contiguous().numpy()))
    found = decode_images(tokenizer, encode_images(tokenizer, originals))
    size = pixels.size(2)
    sheet = Image.new("RGB", (8 * size, 2 * size * -(-len(originals) // 8)), "white")
    for number, pair in enumerate(zip(originals, found)):
        for below, image in enumerate(pair):
            sheet.paste(image, (number % 8 * size, (2 * (number // 8) + below) * size))
    return sheet


@torch.no_grad()
def quality(tokenizer: VQVAE, pixels: Tensor, batch_size: int = 64) -> Quality:
    """Args: pixels: uint8[N, 3, S, S]."""
    counts = torch.zeros(tokenizer.num_codes)
    absolute = squared = 0.0
    for batch in pixels.split(batch_size):
        images = to_unit(batch).to(device_of(tokenizer))
        codes = tokenizer.encode(images)
        counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
        difference = (tokenizer.decode(codes) - images) / 2
        absolute += difference.abs().sum().item()
        squared += difference.square().sum().item()
    shares = counts[counts > 0] / counts.sum()
    error = 255 * absolute / pixels.numel()
    psnr = -10 * torch.log10(torch.tensor(max(squared / pixels.numel(), 1e-10))).item()
    perplexity = torch.exp(-(shares * shares.log()).sum()).item()
    return Quality(len(pixels), error, psnr, len(shares), perplexity)


def training_of(path: Path, config: VQVAEConfig, settings: Mapping) -> dict | None:
    """Content of a tokenizer file, complete or not, if it is of this very training."""
    if not path.is_file():
        return None
    content = load_checkpoint(path)
    same = (content.get("config"), content.get("settings")) == (vars(config), settings)
    return content if same else None
