"""``ofa prepare coco-captions`` of ZIP archives and Hugging Face datasets, none unpacked."""

import base64
import json
import zipfile

import pytest
from original_data import SIZES, write_images

from ofa.cli.main import main
from ofa.errors import UserError
from ofa.io.image_archives import inside, read_inside
from ofa.io.image_files import ImageFolders, look_at, read_image

NAMES = {number: f"train2014/{number}.jpg" for number in SIZES}


@pytest.fixture
def folder(tmp_path):
    """Four images, in a folder and in ``train2014.zip``."""
    write_images(tmp_path / "images", NAMES)
    with zipfile.ZipFile(tmp_path / "train2014.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in NAMES.values():
            file.write(tmp_path / "images" / name, name)
    return tmp_path


def data_of(folder, number: int) -> bytes:
    return (folder / "images" / NAMES[number]).read_bytes()


def run(folder, *words) -> int:
    paths = [str(word).replace("@", f"{folder}/") for word in words]
    return main(["prepare", "coco-captions", *paths, "--out", str(folder / "out")])


def rows(folder, name: str) -> list[list[str]]:
    return [line.split("\t") for line in (folder / "out" / name).read_text().splitlines()]


def test_archives_of_images_and_annotations_are_read_as_folders_are(folder):
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in NAMES],
        "annotations": [{"image_id": number, "caption": f"image {number}"} for number in NAMES],
    }
    with zipfile.ZipFile(folder / "annotations.zip", "w") as file:
        file.writestr("annotations/instances_train2014.json", "{}")
        file.writestr("annotations/captions_train2014.json", json.dumps(content))
    words = ["--annotations", "@annotations.zip", "--images", "@train2014.zip"]
    assert run(folder, *words, "--val-fraction", "0.25") == 0
    found = rows(folder, "caption_stage2_train.tsv") + rows(folder, "caption_val.tsv")
    assert {row[1]: base64.b64decode(row[4]) for row in found} == {
        str(number): data_of(folder, number) for number in NAMES
    }


def test_karpathys_archive_is_read(folder):
    entry = {"filepath": "train2014", "sentences": [{"raw": "a dog"}]}
    images = [
        entry | {"filename": f"{number}.jpg", "cocoid": number, "split": split}
        for number, split in zip(NAMES, ("train", "restval", "val", "test"))
    ]
    with zipfile.ZipFile(folder / "caption_datasets.zip", "w") as file:
        file.writestr("dataset_coco.json", json.dumps({"images": images}))
    assert run(folder, "--split", "@caption_datasets.zip", "--images", "@train2014.zip") == 0
    assert [row[1] for row in rows(folder, "caption_stage2_train.tsv")] == ["1", "2"]


def test_an_archive_without_captions_is_one_message(folder, capsys):
    words = ["--annotations", "@train2014.zip", "--images", "@train2014.zip"]
    assert run(folder, *words, "--val-fraction", "0.25") == 2
    assert "expected captions_*.json in the archive, found none" in capsys.readouterr().err


def test_a_member_that_is_missing_or_damaged_is_a_broken_image(folder):
    archive = folder / "train2014.zip"
    assert look_at(f"{archive}:none.jpg").broken == "missing"
    assert not look_at(f"{archive}:train2014/1.jpg").broken
    data = bytearray(archive.read_bytes())
    data[60:160] = bytes(100)  # of the first member
    (folder / "damaged.zip").write_bytes(data)
    assert "damaged archive" in look_at(f"{folder}/damaged.zip:train2014/1.jpg").broken


def test_a_member_is_found_by_its_path_where_names_come_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("1.jpg", b"first")
        file.writestr("b/1.jpg", b"second")
    found = ImageFolders([tmp_path / "x.zip"]).find("b/1.jpg")
    assert found is not None and read_image(found) == b"second"
    with pytest.raises(UserError, match="expected one file called '1.jpg', found 2"):
        ImageFolders([tmp_path / "x.zip"]).find("1.jpg")


def dataset(folder):
    """Two rows of training, one of validation, one of test without captions."""
    from datasets import Dataset, DatasetDict, Features, Image, Sequence, Value

    features = Features(
        {"image": Image(), "captions": Sequence(Value("string")), "cocoid": Value("int64")}
    )
    parts = {"train": (1, 2), "validation": (3,), "test": (4,)}
    return DatasetDict(
        {
            part: Dataset.from_dict(
                {
                    "image": [{"bytes": data_of(folder, n), "path": None} for n in numbers],
                    "captions": [[] if part == "test" else [f"image {n}", "x"] for n in numbers],
                    "cocoid": list(numbers),
                },
                features=features,
            )
            for part, numbers in parts.items()
        }
    )


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_a_hugging_face_dataset_is_read_with_its_images_and_splits(folder, form):
    saved = dataset(folder)
    if form == "saved":
        saved.save_to_disk(folder / "hub")
    for part, rows_of_part in saved.items() if form == "parquet" else ():
        rows_of_part.to_parquet(folder / f"hub/data/{part}-00000-of-00001.parquet")
    assert run(folder, "--dataset", "@hub") == 0
    train = rows(folder, "caption_stage2_train.tsv")
    assert [row[1:3] for row in train] == [["1", "image 1&&x"], ["2", "image 2&&x"]]
    assert [base64.b64decode(row[4]) for row in train] == [data_of(folder, 1), data_of(folder, 2)]
    assert [row[1:3] for row in rows(folder, "caption_val.tsv")] == [["3", "image 3&&x"]]
    assert [row[1:3] for row in rows(folder, "caption_test.tsv")] == [["4", ""]]


def test_rows_of_one_image_id_caption_one_image_of_many_row_groups(folder):
    import pyarrow
    from pyarrow.parquet import write_table

    numbers = [1, 2, 1, 3]
    table = pyarrow.table(
        {
            "photo": [{"bytes": data_of(folder, number)} for number in numbers],
            "sentence": ["a", "b", "c", "d"],
            "image_id": numbers,
        }
    )
    write_table(table, folder / "all.parquet", row_group_size=2)
    names = ["--columns", "image=photo", "caption=sentence"]
    assert run(folder, "--dataset", "@all.parquet", "--val-fraction", "0.34", *names) == 0
    found = rows(folder, "caption_stage2_train.tsv") + rows(folder, "caption_val.tsv")
    assert {row[1]: row[2] for row in found} == {"1": "a&&c", "2": "b", "3": "d"}
    assert base64.b64decode(dict((r[1], r[4]) for r in found)["3"]) == data_of(folder, 3)


@pytest.mark.parametrize(
    "make, words, message",
    [
        (lambda path: path.mkdir(), [], "expected parquet or Arrow files, found none"),
        (lambda path: path.write_bytes(b"PAR1"), [], "x.parquet: expected a table, found"),
        (lambda path: None, [], "expected parquet or Arrow files, found none"),
        (lambda path: path.write_bytes(b""), ["--images", "@images"], "expected alone"),
    ],
)
def test_a_wrong_dataset_is_one_message(folder, capsys, make, words, message):
    make(folder / "x.parquet")
    assert run(folder, "--dataset", "@x.parquet", *words) == 2
    assert message in capsys.readouterr().err


def test_a_column_that_is_called_otherwise_is_asked_for(folder, capsys):
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"image": [{"bytes": b""}], "words": ["a"]}), folder / "x.parquet")
    assert run(folder, "--dataset", "@x.parquet") == 2
    assert "found image, words; name it with --columns caption=..." in capsys.readouterr().err


def test_images_of_splits_without_ids_are_told_apart(folder):
    saved = dataset(folder).remove_columns("cocoid")
    saved.save_to_disk(folder / "hub")
    (folder / "hub/train/._data-00000-of-00001.arrow").write_bytes(b"of a Mac")
    assert run(folder, "--dataset", "@hub") == 0
    train = rows(folder, "caption_stage2_train.tsv")
    assert [row[2] for row in train] == ["image 1&&x", "image 2&&x"]
    assert [row[2] for row in rows(folder, "caption_val.tsv")] == ["image 3&&x"]
    assert len(rows(folder, "caption_test.tsv")) == 1


def write_table(folder, **columns: list) -> None:
    """``x.parquet`` with an image in each row."""
    import pyarrow
    from pyarrow import parquet

    images = [{"bytes": data_of(folder, number)} for number, _ in zip(NAMES, columns["caption"])]
    parquet.write_table(pyarrow.table({"image": images, **columns}), folder / "x.parquet")


def test_an_id_of_two_splits_is_one_message(folder, capsys):
    write_table(folder, caption=["a", "b"], image_id=["1", "01"], split=["train", "val"])
    assert run(folder, "--dataset", "@x.parquet") == 2
    assert "expected every image once, found image 01 again" in capsys.readouterr().err


def test_only_the_ending_of_an_image_file_is_cut_from_an_id(folder):
    write_table(folder, caption=["a", "b", "c"], filename=["v1.0", "v1.1", "val/a.JPG"])
    assert run(folder, "--dataset", "@x.parquet") == 0
    found = [row[1] for row in rows(folder, "caption_stage2_train.tsv")]
    assert sorted(found) == ["a", "v1.0", "v1.1"]


def test_a_broken_row_leaves_no_image_without_captions(folder):
    write_table(folder, caption=["a", "", "c"], image_id=[1, 2, 3])
    assert run(folder, "--dataset", "@x.parquet", "--skip-broken") == 0
    assert [row[1:3] for row in rows(folder, "caption_stage2_train.tsv")] == [
        ["1", "a"],
        ["3", "c"],
    ]


def test_damage_inside_a_table_is_one_message(folder, capsys):
    write_table(folder, caption=[f"a caption {number}" for number in NAMES])
    data = bytearray((folder / "x.parquet").read_bytes())
    place = data.index(b"a caption 1")  # the captions themselves, not the figures at the end
    data[place - 20 : place + 20] = bytes(range(200, 240))
    (folder / "x.parquet").write_bytes(data)
    assert run(folder, "--dataset", "@x.parquet") == 2
    error = capsys.readouterr().err
    assert "x.parquet: expected a table, found" in error and "download it again" in error


def test_a_cell_that_is_too_large_is_not_read(folder):
    write_table(folder, caption=["a"])
    place = inside(f"{folder}/x.parquet:image/0")
    assert place is not None and read_inside(place, 1 << 20) == data_of(folder, 1)
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_inside(place, 10)


def test_an_image_that_a_table_of_images_lacks_is_named(folder, capsys):
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)],
        "annotations": [{"image_id": number, "caption": "a dog"} for number in (1, 2)],
    }
    (folder / "c.json").write_text(json.dumps(content))
    (folder / "i.tsv").write_text(f"1\t{base64.b64encode(data_of(folder, 1)).decode()}\n")
    words = ["--annotations", "@c.json", "--images", "@i.tsv", "--val-fraction", "0.5"]
    assert run(folder, *words) == 2
    error = capsys.readouterr().err
    assert "1 of the images cannot be used" in error and "i.tsv:2.jpg: missing" in error


def test_two_files_of_the_split_in_an_archive_are_one_message(folder, capsys):
    with zipfile.ZipFile(folder / "k.zip", "w") as file:
        file.writestr("a/dataset_coco.json", "{}")
        file.writestr("b/dataset_coco.json", "{}")
    assert run(folder, "--split", "@k.zip", "--images", "@train2014.zip") == 2
    assert "k.zip: expected one dataset_coco.json in the archive, found 2" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["--dataset", "@x.parquet", "--id-prefix"], "--id-prefix: expected --annotations"),
        (
            ["--split", "@x.json", "--images", "@images", "--columns", "caption=words"],
            "--columns: expected --dataset",
        ),
    ],
)
def test_options_without_effect_are_one_message(folder, capsys, words, message):
    assert run(folder, *words) == 2
    assert message in capsys.readouterr().err
