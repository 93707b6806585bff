"""How many rows per second ``ofa doctor`` checks.

    python benchmarks/doctor.py [--rows 60000] [--photos 400] [--jobs 2] [--folder DIR] [--json
    FILE]

1. every rule but decoding images, on files of questions, boxes, captions with small images (4
   KB of base64), of plain text and of image codes, by one process and by ``--jobs``; also per
   second of processor time, for machines that are not idle
2. photo-sized images without decoding: MB/s, beside a plain read of the file
3. photos with decoding: rows/s by one process and by ``--jobs``
"""

import argparse
import base64
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ofa.doctor.rule import Settings
from ofa.doctor.scan import scan
from ofa.doctor.schemas import codes_of, schemas

SMALL = base64.b64encode(random.Random(0).randbytes(3000)).decode()
WORDS = "what is the color of this big round table by the left window near a small dog".split()


def seconds(function: Callable, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def sentence(i: int, count: int = 8) -> str:
    return " ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(count))


ROWS: dict[str, Callable[[int], list[str]]] = {
    "vqa_gen": lambda i: [
        str(i),
        str(i // 3),
        sentence(i),
        "0.6|!+no&&1.0|!+yes&&0.3|!+a table",
        "dog&&table",
        SMALL,
    ],
    "refcoco": lambda i: [
        f"{i}_0",
        str(i),
        sentence(i, 4),
        f"{i % 90}.5,2.25,{100 + i % 90},200.75",
        SMALL,
    ],
    "caption": lambda i: [f"{i}_0", str(i), sentence(i, 11), "", SMALL],
    "text": lambda i: [str(i), sentence(i, 40)],
    "image_gen": lambda i: [
        str(i),
        " ".join(str((i + 37 * k) % 8192) for k in range(1024)),
        sentence(i),
    ],
}


def write(path: Path, count: int, row: Callable[[int], list[str]]) -> Path:
    with open(path, "w") as file:
        file.writelines("\t".join(row(i)) + "\n" for i in range(count))
    return path


def settings_of(task: str, images: bool) -> Settings:
    schema = schemas()[task]
    numbers = schema.numbers()
    columns = tuple((column, numbers[column.name]) for column in schema.columns_named(numbers))
    return Settings(task=task, columns=columns, codes=codes_of(schema)[0], images=images)


def check(path: Path, task: str, jobs: int, images: bool = False) -> None:
    report = scan(str(path), settings_of(task, images), jobs)
    assert not report.faults, report.findings[0]


def measure_rules(folder: Path, rows: int, jobs: int) -> dict[str, float]:
    """Rows per second of every rule that needs no decoding."""
    figures = {}
    for task, row in ROWS.items():
        path = write(folder / f"{task}.tsv", rows, row)
        seconds(check, path, task, 1)  # the index, and a warm page cache
        before, wall = time.process_time(), seconds(check, path, task, 1)
        figures[f"{task}_rows_per_cpu_s"] = rows / (time.process_time() - before)
        figures[f"{task}_rows_per_s"] = rows / wall
        figures[f"{task}_rows_per_s_{jobs}_processes"] = rows / seconds(check, path, task, jobs)
        path.unlink()
    return figures


def measure_photos(folder: Path, photos: int, jobs: int) -> dict[str, float]:
    """Photo-sized rows without and with decoding."""
    # not at the top: processes import this file, and torch would come with it
    from tsv import photo_fields, read_all

    fields = photo_fields(16)
    path = write(
        folder / "photos.tsv",
        photos,
        lambda i: [f"{i}_0", str(i), sentence(i), "", fields[i % len(fields)]],
    )
    size = path.stat().st_size / 1e6
    check(path, "caption", 1)
    one = photos / seconds(check, path, "caption", 1, True)
    return {
        "photo_mb_per_s_without_decoding": size / seconds(check, path, "caption", 1),
        "plain_read_mb_per_s": size / seconds(read_all, path),
        "decoded_photos_per_s": one,
        f"decoded_photos_per_s_{jobs}_processes": (
            photos / seconds(check, path, "caption", jobs, True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rows", type=int, default=60_000, help="rows of each file without decoding"
    )
    parser.add_argument(
        "--photos",
        type=int,
        default=2000,
        help="photos decoded; fewer are not worth several processes",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes of the second measurement")
    parser.add_argument("--folder", help="where to write the files, removed afterwards")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ofa-doctor-", dir=arguments.folder))
    try:
        figures = measure_rules(folder, arguments.rows, arguments.jobs)
        figures |= measure_photos(folder, arguments.photos, arguments.jobs)
    finally:
        shutil.rmtree(folder)
    for name, value in figures.items():
        print(f"{name:<42}{value:>12.0f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
