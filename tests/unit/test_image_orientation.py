"""One rule for the EXIF orientation: whoever chooses a file by what a viewer shows gets those
pixels, a TSV is read as it is."""

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from ofa.cli.main import main
from ofa.data.images import as_image
from ofa.inference.evaluate import ImageFolder
from ofa.io.image_files import image_size, look_at
from ofa.io.images import (
    decode_image,
    image_header,
    open_image,
    upright_box,
    upright_file,
    upright_size,
)
from ofa.prepare.source import summary
from ofa.report.page import Item, Report, write_report
from ofa.tasks import spec_of

FORMATS = {"JPEG": {"quality": 90}, "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
SIZE = (48, 32)  # as a viewer shows it
BOX = (8, 4, 24, 16)  # of the red square in it


def shown() -> Image.Image:
    """Smooth, so that JPEG keeps it, and without any symmetry."""
    x, y = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    image = Image.fromarray((np.dstack([60 + 90 * x, 200 * y, 90 + 120 * x * y])).astype(np.uint8))
    image.paste((230, 20, 30), BOX)
    return image


def stored(kind: str, orientation: int, **options) -> bytes:
    """The file of a camera that writes ``orientation`` and shows ``shown()``."""
    back = {
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        7: Image.Transpose.TRANSVERSE,
    }
    image = shown().transpose(back[orientation]) if orientation != 1 else shown()
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=tags, **(FORMATS[kind] | options))
    return file.getvalue()


def close(found: Image.Image, wanted: Image.Image, mean: float = 0.0) -> bool:
    """Args: mean: gray levels by which the images may differ on average."""
    return (
        found.size == wanted.size
        and np.abs(np.asarray(found, float) - np.asarray(wanted, float)).mean() <= mean
    )


every = pytest.mark.parametrize(
    "kind, orientation", [(kind, number) for kind in FORMATS for number in range(1, 9)]
)


@every
def test_an_upright_image_is_what_a_viewer_shows(kind, orientation):
    data = stored(kind, orientation)
    with Image.open(io.BytesIO(data)) as image:
        assert close(open_image(data, upright=True), ImageOps.exif_transpose(image))
    assert close(open_image(data, upright=True), shown(), 4 if kind == "JPEG" else 0)


@every
def test_an_embedded_file_shows_upright_what_prediction_sees(kind, orientation):
    data = stored(kind, orientation)
    embedded = upright_file(data)
    # of a sharp red edge
    assert close(open_image(embedded), open_image(data, upright=True), 2.5 if kind == "JPEG" else 0)
    assert close(open_image(upright_file(data, lossless=True)), open_image(data, upright=True))
    assert image_header(embedded) == (SIZE, 1)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_stored_upright_keeps_its_bytes(kind):
    data = stored(kind, 1)
    assert upright_file(data) is data


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_jpeg_keeps_its_tables_and_hardly_changes(subsampling, orientation):
    data = stored("JPEG", orientation, subsampling=subsampling, quality=75)
    with (
        Image.open(io.BytesIO(data)) as before,
        Image.open(io.BytesIO(upright_file(data))) as after,
    ):
        tables = {
            number: np.reshape(table, (8, 8)) for number, table in before.quantization.items()
        }
        for number, table in after.quantization.items():
            assert np.array_equal(
                np.reshape(table, (8, 8)), tables[number].T if orientation == 6 else tables[number]
            )
    assert close(
        open_image(upright_file(data)),
        open_image(data, upright=True),
        0.1 if subsampling == 0 else 2.5,
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_of_png_is_turned_without_loss(mode):
    image = shown().convert("L") if mode in ("LA", "I;16") else shown()
    image = (
        Image.fromarray(np.asarray(image, np.uint16) * 200)
        if mode == "I;16"
        else image.convert(mode)
    )
    tags, file = Image.Exif(), io.BytesIO()
    tags[0x0112] = 8
    image.save(file, "PNG", exif=tags)
    data = file.getvalue()
    assert close(open_image(upright_file(data)), open_image(data, upright=True))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_of_the_caller_is_turned_once(orientation):
    image = Image.open(io.BytesIO(stored("PNG", orientation)))
    assert close(as_image(image), shown())
    assert close(as_image(as_image(image)), shown())
    assert close(as_image(ImageOps.exif_transpose(image)), shown())
    assert close(as_image(Image.open(io.BytesIO(stored("TIFF", orientation)))), shown())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_turned_with_their_image(orientation):
    pixels = open_image(stored("PNG", orientation))
    red = np.argwhere((np.asarray(pixels) == (230, 20, 30)).all(axis=2))
    (y0, x0), (y1, x1) = red.min(axis=0), red.max(axis=0) + 1
    assert upright_box((x0, y0, x1, y1), pixels.size, orientation) == BOX
    assert upright_size(pixels.size, orientation) == SIZE


@every
def test_sizes_that_boxes_are_checked_with_are_upright(tmp_path, kind, orientation):
    (tmp_path / "a.jpg").write_bytes(stored(kind, orientation))
    assert image_size(str(tmp_path / "a.jpg")) == look_at(str(tmp_path / "a.jpg")).size == SIZE


# ------------------------------------------------------------------------------------- the ways in


@every
def test_a_folder_of_images_is_evaluated_as_predict_sees_it(tmp_path, kind, orientation):
    path = tmp_path / "photo.jpg"
    path.write_bytes(stored(kind, orientation))
    ((_, field, _),) = (ImageFolder(str(tmp_path), spec_of("caption"))[0],)
    assert close(decode_image(field), as_image(path))


def test_prepared_rows_are_upright_counted_and_their_boxes_fit(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    lines = ["image,text,box"]
    for kind in FORMATS:
        for orientation in range(1, 9):
            (tmp_path / f"images/{kind}{orientation}.jpg").write_bytes(stored(kind, orientation))
            lines.append(f'{kind}{orientation}.jpg,the red square,"{",".join(map(str, BOX))}"')
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert (
        main(
            [
                "prepare",
                "csv",
                str(tmp_path / "t.csv"),
                "--task",
                "refcoco",
                "--images",
                str(tmp_path / "images"),
                "--split",
                "val",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    # Pillow turns TIFF itself
    assert "21 images turned upright, as EXIF orientation says" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "out/manifest.json").read_text())["images"]["turned_upright"] == 21
    )
    for line in (tmp_path / "out/refcoco_val.tsv").read_text().splitlines():
        _, name, _, box, field = line.split("\t")
        x0, y0, x1, y1 = (int(float(number)) for number in box.split(","))
        assert decode_image(field).size == SIZE
        assert (
            np.abs(
                np.asarray(decode_image(field))[(y0 + y1) // 2, (x0 + x1) // 2]
                - np.array((230, 20, 30.0))
            ).max()
            < 20
        ), name


def write_refer(folder, stated: tuple[int, int], box: list[float]) -> None:
    import pickle

    (folder / "images").mkdir()
    (folder / "images/a.jpg").write_bytes(stored("PNG", 6))
    (folder / "refs(unc).p").write_bytes(
        pickle.dumps(
            [
                {
                    "ref_id": 1,
                    "ann_id": 1,
                    "image_id": 1,
                    "split": "val",
                    "sentences": [{"sent": "the red square", "raw": "the red square"}],
                }
            ]
        )
    )
    (folder / "instances.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": 1, "file_name": "a.jpg", "width": stated[0], "height": stated[1]}
                ],
                "annotations": [{"id": 1, "image_id": 1, "bbox": box}],
            }
        )
    )


@pytest.mark.parametrize(
    "stated, box",
    [((32, 48), [4, 24, 12, 16]), ((48, 32), [8, 4, 16, 12])],
    ids=["stored", "upright"],
)
def test_the_stated_size_tells_which_pixels_a_box_counts(tmp_path, stated, box):
    write_refer(tmp_path, stated, box)
    assert (
        main(
            [
                "prepare",
                "refcoco",
                "--data",
                str(tmp_path),
                "--images",
                str(tmp_path / "images"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    cells = (tmp_path / "out/refcoco_val.tsv").read_text().rstrip("\n").split("\t")
    assert cells[3] == "8.0,4.0,24.0,16.0" and close(decode_image(cells[4]), shown())


def test_doctor_notes_rotated_rows_and_counts_them(tmp_path, capsys):
    path = tmp_path / "rows.tsv"
    path.write_text(
        "".join(
            f"{number}\t9\ta red square\t\t{base64.b64encode(stored('JPEG', number)).decode()}\n"
            for number in (1, 6, 3)
        )
    )
    assert main(["doctor", str(path), "--task", "caption"]) == 0
    printed = capsys.readouterr().out
    assert (
        f"{path}:2:4 exif-orientation - " in printed
        and "found the EXIF orientation 6" in printed
        and f"{path}:3:4" in printed
    )
    assert "2 notes" in printed


def test_a_page_shows_what_the_model_has_seen(tmp_path):
    field = base64.b64encode(stored("JPEG", 6)).decode()
    item = Item(answer="a red square", image=field, id="a")
    write_report(tmp_path / "page.html", Report("title", "", items=[item]))
    page = (tmp_path / "page.html").read_text()
    field = page.partition("data:image/png;base64,")[2].partition('"')[0]
    assert image_header(base64.b64decode(field)) == ((32, 48), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_a_published_file_count_the_stored_pixels(tmp_path, orientation):
    data = stored("PNG", orientation)
    red = np.argwhere((np.asarray(open_image(data)) == (230, 20, 30)).all(axis=2))
    (y0, x0), (y1, x1) = red.min(axis=0), red.max(axis=0) + 1
    row = f"1_1\t红色方块\t{x0},{y0},{x1},{y1}\t{base64.b64encode(data).decode()}\n"
    (tmp_path / "val.tsv").write_text(row, encoding="utf-8")
    options = ["--val", str(tmp_path / "val.tsv"), "--out", str(tmp_path / "out")]
    assert main(["prepare", "refcoco-cn", *options]) == 0
    *_, box, field = (tmp_path / "out/refcoco_cn_val.tsv").read_text().rstrip("\n").split("\t")
    assert box == "8.0,4.0,24.0,16.0" and close(decode_image(field), shown())


@pytest.mark.parametrize("name", ["images", "pictures"])  # the second as of earlier manifests
def test_the_summary_reads_what_a_manifest_says_of_its_images(tmp_path, capsys, name):
    manifest = {name: {"turned_upright": 1}, "files": {"a.tsv": {"rows": 1, "bytes": 2e6}}}
    summary(SimpleNamespace(folder=tmp_path, manifest=manifest))
    printed = capsys.readouterr().out
    assert printed.startswith("1 image turned upright") and printed.endswith(
        "a.tsv: 1 row, 2.0 MB\n"
    )
