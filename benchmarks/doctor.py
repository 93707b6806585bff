"""How many rows per second ``ofa doctor`` checks.

Every rule but decoding images, on small rows of each kind; photos with and without decoding, beside
a plain read of the file; by one process and by ``--jobs``, and per second of processor time.
"""

import base64
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from frame import Args, fastest, photo_fields, print_figures, program, read_all, seconds

from ofa.doctor.scan import scan
from ofa.doctor.schemas import Settings, codes_of, schemas

SMALL = base64.b64encode(random.Random(0).randbytes(3000)).decode()
ANSWERS = "0.6|!+no&&1.0|!+yes&&0.3|!+a table"
WORDS = "what is the color of this big round table by the left window near a small dog".split()


def sentence(i: int, count: int = 8) -> str:
    return " ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(count))


def image_codes(i: int) -> str:
    return " ".join(str((i + 37 * k) % 8192) for k in range(1024))


ROWS: dict[str, Callable[[int], str]] = {
    "vqa_gen": lambda i: f"{i}\t{i // 3}\t{sentence(i)}\t{ANSWERS}\tdog&&table\t{SMALL}\n",
    "refcoco": lambda i: f"{i}_0\t{i}\t{sentence(i, 4)}\t{i % 90}.5,2.25,200,200.75\t{SMALL}\n",
    "caption": lambda i: f"{i}_0\t{i}\t{sentence(i, 11)}\t\t{SMALL}\n",
    "text": lambda i: f"{i}\t{sentence(i, 40)}\n",
    "image_gen": lambda i: f"{i}\t{image_codes(i)}\t{sentence(i)}\n",
}


def write(path: Path, count: int, row: Callable[[int], str]) -> Path:
    with open(path, "w") as file:
        file.writelines(map(row, range(count)))
    return path


def check(path: Path, task: str, jobs: int, images: bool = False) -> None:
    schema = schemas()[task]
    numbers = schema.numbers()
    columns = tuple((column, numbers[column.name]) for column in schema.columns_named(numbers))
    settings = Settings(task=task, columns=columns, codes=codes_of(schema)[0], images=images)
    report = scan(str(path), settings, jobs)
    assert not report.faults, report.findings[0]


def measure_rules(folder: Path, rows: int, jobs: int) -> dict[str, float]:
    """Rows per second of every rule that needs no decoding."""
    figures = {}
    for task, row in ROWS.items():
        path = write(folder / f"{task}.tsv", rows, row)
        check(path, task, 1)  # the index, and a warm page cache
        wall, cpu = fastest({"one": partial(check, path, task, 1)}, 1)
        figures[f"{task}_rows_per_cpu_s"] = rows / cpu["one"]
        figures[f"{task}_rows_per_s"] = rows / wall["one"]
        figures[f"{task}_rows_per_s_{jobs}_processes"] = rows / seconds(check, path, task, jobs)
        path.unlink()
    return figures


def measure_photos(folder: Path, photos: int, jobs: int) -> dict[str, float]:
    """Photo-sized rows without and with decoding."""
    fields, path = photo_fields(16), folder / "photos.tsv"
    write(path, photos, lambda i: f"{i}_0\t{i}\t{sentence(i)}\t\t{fields[i % 16]}\n")
    size = path.stat().st_size / 1e6
    check(path, "caption", 1)
    one, several = (photos / seconds(check, path, "caption", count, True) for count in (1, jobs))
    return {
        "photo_mb_per_s_without_decoding": size / seconds(check, path, "caption", 1),
        "plain_read_mb_per_s": size / seconds(read_all, path),
        "decoded_photos_per_s": one,
        f"decoded_photos_per_s_{jobs}_processes": several,
    }


@program(
    rows=(60_000, "rows of each file without decoding"),
    photos=(2000, "photos decoded; fewer are not worth several processes"),
    jobs=(2, "processes of the second measurement"),
    folder=(str, "where to write the files, removed afterwards"),
)
def main(args: Args) -> dict:
    with tempfile.TemporaryDirectory(prefix="ofa-doctor-", dir=args.folder) as name:
        figures = measure_rules(Path(name), args.rows, args.jobs)
        figures |= measure_photos(Path(name), args.photos, args.jobs)
    return print_figures(figures, digits=0)
