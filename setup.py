"""Package ``ofa-fairseq``: the folders of this checkout, installed under the one import name ``ofa``."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "ofa/__init__.py").read_text()).group(1)

# Folder of the checkout -> import name. Nothing called ``models`` or ``data`` is ever installed.
PACKAGES = {
    "ofa": "ofa",
    "ofa.cli": "ofa/cli",
    "ofa.doctor": "ofa/doctor",
    "ofa.io": "ofa/io",
    "ofa.metrics": "ofa/metrics",
    "ofa.sources": "ofa/sources",
    "ofa.models": "models",
    "ofa.data": "data",
    "ofa.criterions": "criterions",
    "ofa.tasks": "tasks",
}

# For text-to-image: ranking pictures by CLIP, FID and Inception score.
IMAGES = ["open_clip_torch>=2.24", "torchmetrics>=1.4", "torch-fidelity>=0.3"]
# For ``ofa prepare glue`` from folders of Hugging Face datasets.
LANGUAGE = ["datasets>=3"]
# For ``ofa demo``.
DEMO = ["gradio>=6.7"]

setup(
    name="ofa-fairseq",
    version=VERSION,
    description="One-For-All sequence-to-sequence models: train, finetune and evaluate, as a fairseq plugin",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={"ofa": ["templates/*"]},
    install_requires=[
        "torch>=2.10,<2.12",
        "torchvision>=0.25,<0.27",
        "fairseq-fixed==0.12.3.1",
        "numpy>=1.26",
        "pillow>=12.1.1",
        "sentencepiece>=0.2",
        "tokenizers>=0.20",
        "tqdm>=4.60",
        "jinja2>=3.1",
        "sacrebleu>=2.4",
        "rouge-score>=0.1.2",
        "pycocoevalcap>=1.2",
        "safetensors>=0.4",
        "tensorboard>=2.15",
        "tensorboardX>=2.6",
        "pyyaml>=6",
        "webdataset>=0.2.100",
        "scikit-learn>=1.4",
        "rapidfuzz>=3.6",
        "zhconv>=1.4.3",
        "setuptools<81",  # zhconv imports pkg_resources, which newer ones no longer bring
    ],
    extras_require={
        "images": IMAGES,
        "language": LANGUAGE,
        "demo": DEMO,
        "test": [*IMAGES, *LANGUAGE, *DEMO, "pytest>=8", "pytest-xdist>=3.5", "playwright>=1.50"],
    },
    entry_points={"console_scripts": ["ofa = ofa.cli.main:main"]},
)
