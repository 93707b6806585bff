"""Images and a tokenizer that are made in a moment."""

import base64
import io
from pathlib import Path

import torch
from PIL import Image

from ofa.io import tensor_files
from ofa.models.image_tokenizer.vq_vae import VQVAE, VQVAEConfig, vq_vae_content
from ofa.synthetic.shapes import make_scene, render


def small_tokenizer(num_codes: int = 32) -> VQVAE:
    """A network that has learned nothing, with codes that differ from each other."""
    torch.manual_seed(3)
    return VQVAE(VQVAEConfig(num_codes=num_codes, width=8, depth=1)).eval()


def save_tokenizer(folder: Path, num_codes: int = 32) -> Path:
    path = folder / "tokenizer.pt"
    tensor_files.save(vq_vae_content(small_tokenizer(num_codes)), path)
    return path


def drawn(number: int, size: int = 64) -> Image.Image:
    """An image of synthetic shapes."""
    return render(make_scene(1, "train", number), size)


def field(image: Image.Image) -> str:
    """The image as a TSV holds it."""
    data = io.BytesIO()
    image.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def image_tsv(path: Path, images: list[Image.Image]) -> Path:
    """Columns: id, image, caption."""
    path.write_text(
        "".join(f"{i}\t{field(image)}\tcaption {i}\n" for i, image in enumerate(images))
    )
    return path
