"""Golden numbers recorded from upstream's OFA, and how the tests read them.

``golden/`` holds a compact copy: equal images are stored once (``golden/images``), json files are
gzipped, and the long ``encoder_out``-like arrays keep every third position. A folder with the full
recordings can be named by the environment variable ``OFA_PARITY_DIR``; the same tests then read
that instead.

    python tests/parity/golden.py FULL_FOLDER     # rebuild the compact copy
"""

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

COPY = Path(__file__).parent / "golden"
sys.path.insert(0, str(COPY))
from fill import make_images_u8  # noqa: E402

FULL = Path(os.environ["OFA_PARITY_DIR"]) if os.environ.get("OFA_PARITY_DIR") else None
STRIDE = 3
IMAGE_SEED = 1234
LONG = ("encoder_out", "encoder_padding_mask", "position_embeddings", "encoder_state_")
PACKED_NPZ = (
    "forward_*",
    "grad_*",
    "generate_*",
    "bucket_tables*",
    "criterion_inputs*",
    "criterion_scst*",
    "dataset_*",
    "whole_word_mask*",
    "vqgan_*",
)
PACKED_JSON = (
    "state_dict_*",
    "grad_*",
    "criterion_*",
    "dataset_*",
    "bpe_*",
    "metrics_*",
    "lr_schedule*",
    "cider_cached_df*",
    "vqgan_*",
    "layout_*",
)
# ends of keys: what others that are kept imply
LEFT_OUT = ("/quant", "/gap", "sq/decoded_u8", "wide/decoded_u8")
COPIED = ("dataset_*.tsv", "cider_cached_df.p", "fill.py", "unify_negative_sample/*")


def path(name: str) -> Path:
    """Path of a recorded file or folder that both places hold unchanged (tsv, pickle)."""
    full = FULL and FULL / name
    return full if full and full.exists() else COPY / name


def load_json(name: str):
    """Content of ``name.json``."""
    if FULL and (FULL / f"{name}.json").exists():
        return json.loads((FULL / f"{name}.json").read_text())
    return json.loads(gzip.decompress((COPY / f"{name}.json.gz").read_bytes()))


def load(name: str) -> dict[str, np.ndarray]:
    """Arrays of ``name.npz``; positions of LONG arrays are thinned to ``[:, ::STRIDE]``.

    Returns: key -> array; ``meta`` is added as a dict when the file has ``meta_json``.
    """
    folder = FULL if FULL and (FULL / f"{name}.npz").exists() else COPY
    with np.load(folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    if folder == FULL:
        arrays = {key: thin(key, value) for key, value in arrays.items()}
    for key in [k for k in arrays if k.endswith("@")]:
        arrays[key[:-1]] = recall_image(arrays.pop(key).item())
    if "meta_json" in arrays:
        arrays["meta"] = json.loads(arrays.pop("meta_json").item())
    return arrays


def names(pattern: str) -> list[str]:
    """Names (without ending) of the recorded npz or json files whose name matches a glob."""
    return sorted(
        {p.name.split(".")[0] for p in COPY.glob(pattern) if p.name.endswith((".npz", ".json.gz"))}
    )


def thin(key: str, value: np.ndarray) -> np.ndarray:
    return value[:, ::STRIDE] if key.startswith(LONG) else value


def store_image(value: np.ndarray, case: str) -> str:
    """Where ``recall_image`` finds an image batch: the formula that made it, or a stored file."""
    name = f"{case.split('_', 1)[1]}/img"
    if np.array_equal(make_images_u8(name, value.shape, IMAGE_SEED), value):
        return "made:" + name + ":" + ",".join(map(str, value.shape))
    digest = hashlib.sha256(value.tobytes()).hexdigest()[:12]
    np.savez_compressed(COPY / "images" / f"{digest}.npz", image=value)
    return "file:" + digest


def recall_image(where: str) -> np.ndarray:
    """uint8[B, 3, H, W] written by ``store_image``."""
    if where.startswith("file:"):
        return np.load(COPY / "images" / f"{where[5:]}.npz")["image"]
    _, name, shape = where.split(":")
    return make_images_u8(name, tuple(map(int, shape.split(","))), IMAGE_SEED)


def pack(full: Path) -> None:
    """Write the compact copy of ``full`` into ``golden/``."""
    (COPY / "images").mkdir(parents=True, exist_ok=True)
    for source in sorted({p for pattern in PACKED_NPZ for p in full.glob(pattern + ".npz")}):
        arrays = {}
        with np.load(source) as file:
            for key in [key for key in file.files if not key.endswith(LEFT_OUT)]:
                value = file[key]
                if value.dtype == np.uint8 and value.ndim == 4:
                    arrays[key + "@"] = np.array(store_image(value, source.stem))
                else:
                    arrays[key] = thin(key, value)
        np.savez_compressed(COPY / source.name, **arrays)
    for source in sorted({p for pattern in PACKED_JSON for p in full.glob(pattern + ".json")}):
        text = json.dumps(json.loads(source.read_text()), separators=(",", ":"), ensure_ascii=False)
        (COPY / (source.name + ".gz")).write_bytes(gzip.compress(text.encode(), mtime=0))
    for source in sorted({p for pattern in COPIED for p in full.glob(pattern)}):
        copy = COPY / source.relative_to(full)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(source.read_bytes())


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
