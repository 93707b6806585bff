"""A training that lets its device decode JPEG images: with images of the size that the model sees,
which nobody resizes, it is the training whose data workers decode them."""

import base64
import io

from caption_files import COLORS
from PIL import Image
from training_runs import curve, flags, make_files, train

SIDE = 32  # of ``flags``


def jpeg(number: int) -> str:
    image = Image.linear_gradient("L").convert("RGB").resize((SIDE, SIDE))
    file = io.BytesIO()
    image.rotate(30 * number, fillcolor=COLORS[number % 7]).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def test_losses_and_scores_are_those_of_images_that_workers_decoded(tmp_path):
    files, found = make_files(tmp_path, rows=8), {}
    for path in (files.train, files.valid):
        rows = [line.split("\t")[:-1] for line in path.read_text().splitlines()]
        lines = ("\t".join([*row, jpeg(number)]) for number, row in enumerate(rows))
        path.write_text("\n".join(lines) + "\n")
    for name, more in (("workers", []), ("device", ["--decode-on-device"])):
        record = tmp_path / f"{name}.txt"
        recipe = flags(files, tmp_path / name, "--max-epoch=1", "--num-workers=1", *more)
        done = train(recipe, record=record)
        assert done.code == 0 and "| valid |" in done.log, done.log[-3000:]
        found[name] = curve(record)
    assert found["workers"] == found["device"] and len(found["device"]) == 2
