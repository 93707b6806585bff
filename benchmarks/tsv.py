"""How fast TSV files open and read, compared with what the work costs by itself.

    python benchmarks/tsv.py [--rows 1000000] [--megabytes 1024] [--samples 200] [--folder DIR]
    [--json FILE]

1. first index: MB/s of the first opening of a file of image-sized rows, beside a plain read of the
file
2. opening: ms to open a file of many short rows that is indexed already, and to read its last row
3. reading: time of a sample (row, base64, decode, resize, normalize) over the same without the file
"""

import argparse
import base64
import io
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ofa.data.images import image_transform
from ofa.data.tsv import TsvFile
from ofa.io.images import decode_image, to_rgb

REPEATS = 5


def photo_fields(count: int) -> list[str]:
    """Fields as COCO has them: 640 x 480 JPEG of smooth shapes and noise, about 100 KB of
    base64."""
    random = np.random.default_rng(0)
    fields = []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        image = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=90)
        fields.append(base64.b64encode(file.getvalue()).decode())
    return fields


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def read_all(path: Path) -> None:
    """Plain sequential read, the floor of indexing."""
    buffer = bytearray(8 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def measure_index(folder: Path, megabytes: int, fields: list[str]) -> dict[str, float]:
    """First index of a file of ``megabytes`` of image rows; the page cache is warm for both."""
    path = folder / "images.tsv"
    with open(path, "w") as file:
        row = 0
        while file.tell() < megabytes << 20:
            file.write(f"{row}\timg{row}\ta dog on a beach\t\t{fields[row % len(fields)]}\n")
            row += 1
    size = path.stat().st_size / 1e6
    read_all(path)
    plain, index = min(seconds(read_all, path) for _ in range(3)), []
    for _ in range(3):
        Path(f"{path}.idx").unlink(missing_ok=True)
        index.append(seconds(TsvFile, path))
    return {"first_index_mb_per_s": size / min(index), "plain_read_mb_per_s": size / plain}


def measure_opening(folder: Path, rows: int) -> dict[str, float]:
    """Opening a file of ``rows`` short rows, once indexed."""
    path = folder / "short.tsv"
    with open(path, "w") as file:
        file.writelines(
            f"{row}\timg{row}\ta dog on a beach with a red ball\n" for row in range(rows)
        )
    size = path.stat().st_size / 1e6
    first = seconds(TsvFile, path)
    opening = [seconds(lambda: TsvFile(path)[-1]) for _ in range(REPEATS)]
    return {
        "short_rows_first_index_mb_per_s": size / first,
        "opening_ms": 1000 * float(np.median(opening)),
    }


def measure_reading(folder: Path, fields: list[str], samples: int) -> dict[str, float]:
    """A sample through the TSV over base64 + decode + resize + normalize of the same fields in
    memory.

    ``two_workers_speedup``: the same samples read by one process over two (2 where two cores are
    free).
    """
    rows, transform = TsvFile(folder / "images.tsv", "0,4,2"), image_transform(384)
    order = np.random.default_rng(1).integers(0, len(rows), samples).tolist()

    def through_file(chosen=order):
        for row in chosen:
            transform(decode_image(rows[row][1], rows.where(row)))

    def in_memory():
        for row in order:
            data = base64.urlsafe_b64decode(fields[row % len(fields)])
            transform(to_rgb(Image.open(io.BytesIO(data))))

    def with_workers():
        workers = [fork.Process(target=through_file, args=(order[part::2],)) for part in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    through_file(), in_memory()
    times = [
        (seconds(through_file), seconds(in_memory), seconds(with_workers)) for _ in range(REPEATS)
    ]
    ours, floor, _ = (
        float(np.median(column)) / samples * 1000 for column in zip(*times, strict=True)
    )
    return {
        "sample_ms": ours,
        "sample_floor_ms": floor,
        "sample_ratio": float(np.median([a / b for a, b, _ in times])),
        "two_workers_speedup": float(np.median([a / c for a, _, c in times])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the short file")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the file with images")
    parser.add_argument("--samples", type=int, default=200, help="samples read")
    parser.add_argument("--folder", help="where to write the files, removed afterwards")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ofa-tsv-", dir=arguments.folder))
    try:
        fields = photo_fields(32)
        figures = measure_index(folder, arguments.megabytes, fields)
        figures |= measure_opening(folder, arguments.rows)
        figures |= measure_reading(folder, fields, arguments.samples)
    finally:
        shutil.rmtree(folder)
    for name, value in figures.items():
        print(f"{name:<32}{value:>10.2f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
