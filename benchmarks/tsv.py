"""How fast TSV files open and read, compared with what the work costs by itself: the first index
of image-sized rows beside a plain read; opening many short rows that are indexed; a sample (row,
base64, decode, resize, normalize) over the same without the file.
"""

import base64
import io
import multiprocessing
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from frame import Args, fastest, photo_fields, print_figures, program, read_all, seconds
from PIL import Image

from ofa.data.images import image_transform
from ofa.data.tsv import TsvFile
from ofa.io.images import decode_image, to_rgb

REPEATS = 5


def measure_index(folder: Path, megabytes: int, fields: list[str]) -> dict[str, float]:
    """First index of a file of ``megabytes`` of image rows; the page cache is warm for both."""
    path = folder / "images.tsv"
    with open(path, "w") as file:
        row = 0
        while file.tell() < megabytes << 20:
            file.write(f"{row}\timg{row}\ta dog on a beach\t\t{fields[row % len(fields)]}\n")
            row += 1
    size = path.stat().st_size / 1e6

    def index() -> None:
        Path(f"{path}.idx").unlink(missing_ok=True)
        TsvFile(path)

    read_all(path)
    times, _ = fastest({"plain_read": lambda: read_all(path), "first_index": index}, 3)
    return {f"{name}_mb_per_s": size / spent for name, spent in times.items()}


def measure_opening(folder: Path, rows: int) -> dict[str, float]:
    """Opening a file of ``rows`` short rows, once indexed."""
    path = folder / "short.tsv"
    text = "a dog on a beach with a red ball"
    path.write_text("".join(f"{row}\timg{row}\t{text}\n" for row in range(rows)))
    first = seconds(TsvFile, path)
    opening = [seconds(lambda: TsvFile(path)[-1]) for _ in range(REPEATS)]
    return {
        "short_rows_first_index_mb_per_s": path.stat().st_size / 1e6 / first,
        "opening_ms": 1000 * statistics.median(opening),
    }


def measure_reading(folder: Path, fields: list[str], samples: int) -> dict[str, float]:
    """A sample through the TSV, in memory, and by two workers (``two_workers_speedup``: 2 where two
    cores are free)."""
    rows, transform = TsvFile(folder / "images.tsv", "0,4,2"), image_transform(384)
    order = np.random.default_rng(1).integers(0, len(rows), samples).tolist()

    def through_file(chosen: list[int] = order) -> None:
        for row in chosen:
            transform(decode_image(rows[row][1], rows.where(row)))

    def in_memory() -> None:
        for row in order:
            data = base64.urlsafe_b64decode(fields[row % len(fields)])
            transform(to_rgb(Image.open(io.BytesIO(data))))

    def with_workers() -> None:
        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=through_file, args=(order[part::2],)) for part in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    torch.set_num_threads(1)
    through_file(), in_memory()
    times = [
        [seconds(work) for work in (through_file, in_memory, with_workers)] for _ in range(REPEATS)
    ]
    ours, floor, _ = (1000 * statistics.median(column) / samples for column in zip(*times))
    return {
        "sample_ms": ours,
        "sample_floor_ms": floor,
        "sample_ratio": statistics.median(a / b for a, b, _ in times),
        "two_workers_speedup": statistics.median(a / c for a, _, c in times),
    }


@program(
    rows=(1_000_000, "rows of the short file"),
    megabytes=(1024, "size of the file with images"),
    samples=(200, "samples read"),
    folder=(str, "where to write the files, removed afterwards"),
)
def main(args: Args) -> dict:
    with tempfile.TemporaryDirectory(prefix="ofa-tsv-", dir=args.folder) as name:
        folder, fields = Path(name), photo_fields(32)
        figures = measure_index(folder, args.megabytes, fields)
        figures |= measure_opening(folder, args.rows)
        figures |= measure_reading(folder, fields, args.samples)
    return print_figures(figures, digits=2)
