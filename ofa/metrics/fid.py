"""Frechet distance to real images (FID), and Inception score (IS), by torchmetrics.

Features are those of Inception (``pt_inception-2015-12-05-6726825d.pth``), or of another extractor:
uint8[B, 3, H, W] -> features float[B, D], logits float[B, C]. Real images are a folder, or an npz
of statistics: ``mu`` float[D], ``sigma`` float[D, D].
"""

import io
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofa.devices import default_device
from ofa.errors import UserError, reason_of
from ofa.io.image_files import list_images
from ofa.io.images import open_image, read_image_file
from ofa.io.pickles import DAMAGED
from ofa.io.safe_load import load_checkpoint
from ofa.metrics.clip_score import class_of

AT_ONCE = 32
MOST_NUMBERS = 1 << 24  # of an array of statistics: features of 4096 numbers
SPLITS = 10  # parts over which the Inception score is averaged
LAYERS = ("2048", "logits_unbiased")
Extractor = Callable[[Tensor], tuple[Tensor, Tensor]]


def image_scores(
    images: Sequence[Path], extractor: Extractor, real: Path | Sequence[Path] | None = None
) -> dict[str, float]:
    """FID (if there are real images: an npz of statistics, or files), IS and its deviation over the
    parts. Raises: UserError if there are fewer than two images, or files do not fit."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    if len(images) < 2:
        raise UserError(f"FID and Inception score: expected at least 2 images, found {len(images)}")
    given: Any = nn.Identity()  # torchmetrics is handed features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics says that it keeps the features
        inception = InceptionScore(feature=given, splits=min(SPLITS, len(images)))
    distance = None
    for features, logits in extracted(images, extractor):
        if real is not None and distance is None:
            given.num_features = features.size(1)
            distance = FrechetInceptionDistance(feature=given).set_dtype(torch.float64)
        inception.update(logits.double())
        if distance is not None:
            distance.update(features.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # which images make a part
        score, deviation = inception.compute()
    scores = {"IS": float(score), "IS deviation": float(deviation.nan_to_num(0.0))}
    if distance is None or real is None:
        return scores
    if isinstance(real, Path):
        mu, sigma = read_statistics(real, given.num_features)
        # as two images whose mean and covariance are these
        distance.real_features_sum = 2 * mu
        distance.real_features_cov_sum = sigma + 2 * mu.outer(mu)
        distance.real_features_num_samples = torch.tensor(2)
    elif len(real) < 2:
        raise UserError(f"FID: expected at least 2 real images, found {len(real)}")
    else:
        for features, _ in extracted(real, extractor):
            distance.update(features.double(), real=True)
    return {"FID": float(distance.compute()), **scores}


def read_statistics(path: Path, width: int) -> tuple[Tensor, Tensor]:
    """``mu`` float64[D] and ``sigma`` float64[D, D]. Raises: UserError if the file has others."""
    try:
        with zipfile.ZipFile(path) as archive:
            mu, sigma = (read_array(archive, name) for name in ("mu", "sigma"))
    except (*DAMAGED, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: expects statistics of real images (mu and sigma in an npz), found"
            f" {reason_of(error)}"
        ) from None
    if mu.shape != (width,) or sigma.shape != (width, width):
        raise UserError(
            f"{path}: expects mu of {width} numbers and sigma of {width} x {width}, as the features"
            f" have, found {tuple(mu.shape)} and {tuple(sigma.shape)}; were they computed with"
            " another extractor?"
        )
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise UserError(f"{path}: expects finite statistics, found NaN or inf; compute them again")
    return mu, sigma


def read_array(archive: zipfile.ZipFile, name: str) -> Tensor:
    """float64 of an array in an npz. Raises: ValueError, before memory is taken, if it is large."""
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} of another version than 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in "fiu" or math.prod(shape) > MOST_NUMBERS or min(shape, default=0) < 0:
            raise ValueError(f"{name} of {dtype} {shape}")
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
        return torch.from_numpy(np.asarray(array, dtype=np.float64))


def extracted(images: Iterable[Path], extractor: Extractor) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and logits, batch by batch; a new size of image begins a new batch."""
    for _, same in groupby(map(pixels, images), key=lambda image: image.shape):
        while batch := list(islice(same, AT_ONCE)):
            yield extractor(torch.stack(batch))


def pixels(path: Path) -> Tensor:
    """uint8[3, H, W]. Raises: UserError if it is no image."""
    try:
        data = read_image_file(path)
    except OSError as error:
        raise UserError(
            f"{path}: expects an image, found {error.strerror}; remove it or make it anew"
        ) from None
    return torch.from_numpy(np.array(open_image(data, str(path), upright=True))).permute(2, 0, 1)


class Inception:
    """The network of the published figures. Args: path: of its weights. Raises: UserError if
    torch-fidelity is not installed, or the file is missing or holds something else."""

    def __init__(self, path: str | Path):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise UserError(
                "FID and Inception score: expected the package torch-fidelity, found none"
                f" ({error}); install it: pip install torchmetrics torch-fidelity"
            ) from None
        if not Path(path).is_file():
            raise UserError(
                "--inception-model-path: expects the weights of Inception, found no file at"
                f" {path}; put them there"
            )
        # the file is read here: the package would run whatever code is in it
        weights = io.BytesIO()
        torch.save(load_checkpoint(path), weights)
        weights.seek(0)
        try:
            self.network = FeatureExtractorInceptionV3(
                "inception", list(LAYERS), feature_extractor_weights_path=weights
            )
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"--inception-model-path {path}: expects the weights of Inception"
                " (pt_inception-2015-12-05-6726825d.pth), found others"
                f" ({reason_of(error, 150)})"
            ) from None
        self.device = torch.device(default_device())
        self.network.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.network(images.to(self.device))
        return features.cpu(), logits.cpu()


def load_extractor(inception_path: str | None, class_name: str | None) -> Extractor:
    """Args: class_name: ``MODULE:CLASS``, goes before Inception. Raises: UserError without both."""
    if class_name:
        return class_of("--feature-extractor", class_name)()
    if inception_path:
        return Inception(inception_path)
    raise UserError(
        "FID and Inception score: expected --inception-model-path"
        " (pt_inception-2015-12-05-6726825d.pth) or --feature-extractor, found neither"
    )


def real_images(path: str | Path) -> Path | list[Path]:
    """An npz of statistics as it is, a folder as its images. Raises: UserError if it is neither."""
    path = Path(path)
    if path.is_dir():
        return list_images(path)
    if path.suffix == ".npz" and path.is_file():
        return path
    raise UserError(
        "--real-images: expects a folder of images or statistics (gt_stat.npz), found neither at"
        f" {path}"
    )
