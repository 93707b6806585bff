"""Share of the time that a training step waits for its data, below 5 %: pretraining of ofa_tiny on
all eight tasks, with two workers, from TSV files and from WebDataset shards of the same rows in the
order of a shuffle buffer. Images are 640 x 480 JPEG of about 75 KB.
"""

import base64
import io
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from frame import Args, photo_fields, program, trainer_of

from ofa.io.images import open_image

SIZES = (
    "--code-image-size=128 --code-dict-size=8192 --num-bins=1000 --max-image-size=512"
    " --max-src-length=80 --max-tgt-length=30 --sample-patch-num=87 --image-bucket-size=42"
    " --token-bucket-size=256 --disable-validation"
).split()


def write_files(folder: Path, rows: int) -> tuple:
    """The four files with real-sized images, and each as shards of 16 rows: (names of TSV
    files, names of shards)."""
    from pretraining_files import make_files, objects, pair, text, write_rows

    from ofa.data.shard_writer import pack

    photos, square = photo_fields(32), io.BytesIO()
    photo = open_image(base64.b64decode(photos[0]))
    photo.resize((256, 256)).save(square, "JPEG", quality=90)
    small = base64.b64encode(square.getvalue()).decode()

    def with_photo(row: int) -> list[str]:
        name, _, *texts = pair(row)
        return [name, photos[row % 32], *texts]

    def codes(row: int) -> str:
        return " ".join(str((row + place) % 8192) for place in range(256))

    made = {
        "pairs": list(map(with_photo, range(rows))),
        "texts": [text(n) for n in range(rows)],
        "images": [[f"i{n}", small, codes(n)] for n in range(rows // 4)],
        "objects": [[f"d{n}", photos[n % 32], objects(n)[2]] for n in range(rows // 4)],
    }
    files, shards = make_files(folder), folder / "shards"
    for name, content in made.items():
        path = write_rows(folder / f"{name}.tsv", content)
        pack(str(path), str(shards), name, most_rows=16)
        setattr(files, name, str(path))
    return files, Namespace(**{**vars(files), **{name: f"{shards}/{name}-*.tar" for name in made}})


def waited(files, args: Namespace, folder: Path) -> tuple[float, float]:
    """Seconds of waiting for batches, seconds in all, after the warm-up."""
    from fairseq.logging import metrics
    from pretraining_files import pretraining_flags

    own = [f"--arch={args.arch}", f"--patch-image-size={args.pixels}", f"--save-dir={folder}"]
    own += [f"--batch-size={args.batch}", f"--num-workers={args.workers}"]
    trainer = trainer_of(*pretraining_flags(files, *SIZES), *own)
    batches = iter(trainer.get_train_iterator(epoch=1).next_epoch_itr())
    trainer.begin_epoch(1)
    times = []
    for _ in range(args.updates + args.warm_up):
        start = time.perf_counter()
        batch = next(batches)
        waiting = time.perf_counter() - start
        with metrics.aggregate("train"):
            trainer.train_step([batch])
        times.append((waiting, time.perf_counter() - start))
    waits, wholes = zip(*times[args.warm_up :])
    return sum(waits), sum(wholes)


@program(
    updates=(15, "that are measured"),
    warm_up=(3, "updates before the clock starts"),
    workers=(2, "processes that read data"),
    batch=(4, "rows of pairs of an update"),
    arch="ofa_tiny",
    pixels=(256, "side of the images of pairs"),
)
def main(args: Args) -> dict:
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        kinds = write_files(folder, args.batch * (args.updates + args.warm_up + 4))
        for source, files in zip(("TSV", "shards"), kinds):
            waiting, total = waited(files, args, folder / "run")
            share = figures[source] = waiting / total
            print(
                f"{args.arch}, {args.batch} x {args.pixels} px, {args.workers} workers, {source}:"
                f" waits {share:.2%} of the time ({total / args.updates:.2f} s an update)",
                flush=True,
            )
    return figures
