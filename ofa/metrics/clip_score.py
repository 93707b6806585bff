"""How well images and texts, or images and images, fit: CLIP from a file on this machine, or any
class with the same methods. The network is open_clip's, which reads its sizes from state dicts of
OpenAI's networks and of open_clip's vision transformers; programs in TorchScript, as OpenAI
published (``ViT-B-16.pt``), are refused with the command that makes a state dict of them.
"""

import importlib
import json
import shlex
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ofa.devices import default_device
from ofa.errors import UserError, reason_of
from ofa.io.safe_load import load_checkpoint

AT_ONCE = 64
# entries of OpenAI's state dicts that are no weights
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
# what other weights end in where a network is made of them
UNFIT = (RuntimeError, AttributeError, ValueError, ArithmeticError, TypeError, LookupError)


class ClipScorer:
    """Cosine of CLIP's features, -1 to 1. Args: path: of the weights. Raises: UserError if
    open_clip is not installed, or the file is missing or holds something else."""

    def __init__(self, path: str | Path, device: str | torch.device | None = None):
        try:
            import open_clip
        except ImportError as error:
            raise UserError(
                f"CLIP: expected the package open_clip, found none ({error}); install it: pip"
                " install open_clip_torch"
            ) from None
        weights, openai = read_weights(Path(path))
        self.device = torch.device(device or default_device())
        self.network = build(open_clip, weights, openai, path).to(self.device)
        self.tokenize = open_clip.SimpleTokenizer(context_length=self.network.context_length)
        self.transform = open_clip.image_transform(self.network.visual.image_size, is_train=False)

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        """Pair by pair: float32[N]."""
        # the samples of a caption share it
        known = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        # what is longer than CLIP's context is cut
        features = self.features(self.network.encode_text, list(self.tokenize(list(known))))
        return (self.of_images(images) * features[[known[text] for text in texts]]).sum(-1)

    def compare(self, images: Sequence[Image.Image], others: Sequence[Image.Image]) -> Tensor:
        return (self.of_images(images) * self.of_images(others)).sum(-1)

    def of_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Features of length 1: float32[N, C] on the CPU."""
        return self.features(self.network.encode_image, [self.transform(image) for image in images])

    @torch.inference_mode()
    def features(self, encode: Any, inputs: list[Tensor]) -> Tensor:
        parts = [
            torch.stack(inputs[start : start + AT_ONCE]).to(self.device)
            for start in range(0, len(inputs), AT_ONCE)
        ]
        return torch.cat([F.normalize(encode(part).float(), dim=-1).cpu() for part in parts])


def read_weights(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The state dict of a file, and whether it is OpenAI's. Runs nothing. Raises: UserError."""
    check_weights(path)
    try:
        weights = load_checkpoint(path)
        if not isinstance(weights, dict):
            raise UserError("no state dict")
    except UserError as error:
        raise UserError(
            f"--clip-model-path {path}: expects the weights of CLIP, found {reason_of(error, 1000)}"
        ) from None
    inner = (weights[name] for name in ("state_dict", "model") if name in weights)
    weights = next((one for one in inner if isinstance(one, dict)), weights)
    weights = {
        str(name).removeprefix("module."): value
        for name, value in weights.items()
        if isinstance(value, Tensor)
    }
    return weights, "input_resolution" in weights


def check_weights(path: Path) -> None:
    """Before anything is loaded. Raises: UserError if the file is missing or is a program."""
    if not path.is_file():
        raise UserError(
            "--clip-model-path: expects the weights of CLIP (ViT-B-16.pt), found no file at"
            f" {path}; put them there"
        )
    entries: list[str] = []
    with suppress(OSError, ValueError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in entries):
        raise UserError(
            f"--clip-model-path {path}: expects the weights of CLIP, found a TorchScript program,"
            " which loading would run; if you trust where it is from, make weights of it once and"
            f" name those: {conversion(path)}"
        )


def conversion(path: Path) -> str:
    """The command that makes a state dict of a TorchScript archive. It runs the archive."""
    code = (
        f'import torch; torch.save(torch.jit.load({json.dumps(str(path))}, "cpu").state_dict(),'
        f" {json.dumps(str(path.with_suffix('.weights.pt')))})"
    )
    return f"python -c {shlex.quote(code)}"


def build(open_clip: Any, weights: dict[str, Tensor], openai: bool, path: str | Path) -> Any:
    """The network that weights belong to, in evaluation mode, float32."""
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
        if name not in OPENAI_NUMBERS
    }
    try:
        if "visual.proj" not in weights:
            raise LookupError("visual.proj is missing")
        for device in ("meta", "cpu"):  # shapes are compared before memory is taken
            with torch.device(device), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch says that nothing is copied to "meta"
                network = open_clip.model.build_model_from_openai_state_dict(
                    dict(weights), openai, torch.float32
                )
        network.float().load_state_dict(weights)  # it has rounded them to float16
    except UNFIT as error:
        raise UserError(
            f"--clip-model-path {path}: expects a CLIP with a vision transformer, such as ViT-B-16,"
            f" found other weights ({reason_of(error)})"
        ) from None
    return network.eval().requires_grad_(False)


def class_of(flag: str, name: str) -> Any:
    """``MODULE:CLASS`` -> the class. Raises: UserError with ``flag`` if it is not there."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{flag}: expects MODULE:CLASS that Python can import, found {name!r} ({error})"
        ) from None


def load_scorer(clip_path: str | None = None, class_name: str | None = None) -> Any:
    """A scorer that flags name. Args: class_name: ``MODULE:CLASS``, goes before CLIP. Raises:
    UserError if the class is not there or has no ``score``, or CLIP cannot be loaded."""
    if not class_name:
        return ClipScorer(clip_path or "")
    found = class_of("--image-text-scorer", class_name)
    if not callable(getattr(found, "score", None)):
        raise UserError(
            f"--image-text-scorer {class_name}: expects a method score(images, texts), found none"
        )
    return found()
