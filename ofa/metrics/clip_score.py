"""CLIP from a file on this machine: how well images and texts, or images and images, fit.

The network is open_clip's, which reads its sizes from the weights. Files: state dicts of OpenAI's
networks and of open_clip's vision transformers (``.pt``, ``.bin``, ``.safetensors``). The archives
that OpenAI published (``ViT-B-16.pt``) are programs in TorchScript, which loading would run: they
are refused, with the command that makes a state dict of them.
"""

import json
import shlex
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ofa.devices import default_device
from ofa.errors import UserError
from ofa.io.safe_load import load_checkpoint

AT_ONCE = 64
# entries of OpenAI's state dicts that are no weights
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
# what other weights end in where a network is made of them
UNFIT = (RuntimeError, AttributeError, ValueError, ArithmeticError, TypeError, LookupError)


class ClipScorer:
    """Cosine of CLIP's features, -1 to 1.

    Args: path: of the weights. device: default: a GPU if there is one.
    Raises: UserError if open_clip is not installed, or the file is missing or holds something else.
    """

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
            f"--clip-model-path {path}: expects the weights of CLIP, found"
            f" {str(error).splitlines()[0][:1000]}"
        ) from None
    for name in ("state_dict", "model"):
        if isinstance(weights.get(name), dict):
            weights = weights[name]
            break
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
    if is_torchscript(path):
        raise UserError(
            f"--clip-model-path {path}: expects the weights of CLIP, found a TorchScript program,"
            " which loading would run; if you trust where it is from, make weights of it once and"
            f" name those: {conversion(path)}"
        )


def is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


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
            f" found other weights ({str(error).splitlines()[0][:200]})"
        ) from None
    return network.eval().requires_grad_(False)
