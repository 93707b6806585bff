"""``ofa prepare``: caption files from COCO annotations and from synthetic shapes."""

import base64
import errno
import hashlib
import json

import pytest
from PIL import Image

from ofa.cli.main import main
from ofa.prepare import tsv_writer


@pytest.fixture
def coco(tmp_path):
    """Four images (two formats), annotations and Karpathy's split."""
    images = tmp_path / "images" / "val2014"
    images.mkdir(parents=True)
    names = ["a.jpg", "b.png", "c.jpg", "d.jpg"]
    for i, name in enumerate(names):
        Image.new("RGB", (20 + i, 10), (40 * i, 90, 200)).save(images / name)
    captions = [
        ["A cat.", "A cat\tsits\nthere."],
        ["Salt && pepper."],
        ["  ", "A dog, running"],
        ["Trees"],
    ]
    annotations = {
        "images": [{"id": 10 + i, "file_name": f"val2014/{name}"} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": 10 + i, "caption": text}
            for i, texts in enumerate(captions)
            for text in texts
        ],
    }
    split = {
        "images": [
            {
                "filepath": "val2014",
                "filename": name,
                "cocoid": 10 + i,
                "split": part,
                "sentences": [{"raw": text} for text in texts],
            }
            for i, (name, part, texts) in enumerate(
                zip(names, ("train", "restval", "val", "test"), captions)
            )
        ]
    }
    (tmp_path / "captions.json").write_text(json.dumps(annotations))
    (tmp_path / "karpathy.json").write_text(json.dumps(split))
    return tmp_path


def prepare(folder, *options) -> int:
    return main(
        [
            "prepare",
            "coco-captions",
            "--images",
            str(folder / "images"),
            "--out",
            str(folder / "out"),
            *options,
        ]
    )


def karpathy(folder, *options) -> int:
    return prepare(folder, "--split", str(folder / "karpathy.json"), *options)


def rows(path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_karpathys_split_becomes_the_four_upstream_files(coco):
    assert karpathy(coco) == 0
    stage1, stage2 = (
        rows(coco / "out/caption_stage1_train.tsv"),
        rows(coco / "out/caption_stage2_train.tsv"),
    )
    assert [row[:4] for row in stage1] == [
        ["10_0", "10", "A cat.", ""],
        ["10_1", "10", "A cat sits there.", ""],
        ["11_0", "11", "Salt & pepper.", ""],
    ]
    assert [row[:4] for row in stage2] == [
        ["10", "10", "A cat.&&A cat sits there.", ""],
        ["11", "11", "Salt & pepper.", ""],
    ]
    assert [row[0] for row in rows(coco / "out/caption_val.tsv")] == ["12"]
    assert [row[0] for row in rows(coco / "out/caption_test.tsv")] == ["13"]
    reference = json.loads((coco / "out/val_caption_coco_format.json").read_text())
    assert reference["annotations"] == [{"id": 0, "image_id": "12", "caption": "A dog, running"}]


def test_image_files_are_embedded_byte_for_byte(coco):
    karpathy(coco)
    for name, row in zip(("a.jpg", "b.png"), rows(coco / "out/caption_stage2_train.tsv")):
        assert base64.b64decode(row[4]) == (coco / "images/val2014" / name).read_bytes()


def test_annotations_with_a_fraction_split_whole_images_the_same_way_each_time(coco):
    options = (
        "--annotations",
        str(coco / "captions.json"),
        "--val-fraction",
        "0.25",
        "--test-fraction",
        "0.25",
    )
    assert prepare(coco, *options) == 0
    parts = {
        name: [row[1] for row in rows(coco / "out" / name)]
        for name in ("caption_stage2_train.tsv", "caption_val.tsv", "caption_test.tsv")
    }
    assert sorted(sum(parts.values(), [])) == ["10", "11", "12", "13"]
    before = (coco / "out/caption_val.tsv").read_bytes()
    assert prepare(coco, *options, "--out", str(coco / "again")) == 0
    assert (coco / "again/caption_val.tsv").read_bytes() == before


def test_cleaned_captions_are_counted(coco):
    karpathy(coco)
    counts = json.loads((coco / "out/manifest.json").read_text())["counts"]
    assert (counts["captions_cleaned"], counts["captions_empty"]) == (2, 1)


def test_the_manifest_has_rows_bytes_and_checksums(coco):
    karpathy(coco)
    manifest = json.loads((coco / "out/manifest.json").read_text())
    assert manifest["finished"]
    for name, entry in manifest["files"].items():
        data = (coco / "out" / name).read_bytes()
        assert entry["bytes"] == len(data) and entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["files"]["caption_stage1_train.tsv"]["rows"] == 3


@pytest.mark.parametrize("cut", [1, 40, 400, 10_000])
def test_an_interrupted_run_is_continued_to_the_same_bytes(coco, cut):
    karpathy(coco)
    out = coco / "out"
    whole = (out / "caption_stage1_train.tsv").read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    entry = manifest["files"].pop("caption_stage1_train.tsv")
    (out / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    (out / "caption_stage1_train.tsv").unlink()
    # the process was killed here
    (out / "caption_stage1_train.tsv.part").write_bytes(whole[:-1][:cut])
    assert karpathy(coco) == 0
    assert (out / "caption_stage1_train.tsv").read_bytes() == whole
    assert (
        json.loads((out / "manifest.json").read_text())["files"]["caption_stage1_train.tsv"]
        == entry
    )
    assert not list(out.glob("*.part"))


def test_a_full_disk_names_the_part_that_stays_and_is_continued(coco, capsys, monkeypatch):
    monkeypatch.setattr(tsv_writer.Group, "block", full_disk)
    assert karpathy(coco) == 2
    part = coco / "out/caption_stage2_train.tsv.part"
    assert f"error: {part}: No space left on device. What is written" in capsys.readouterr().err
    assert part.exists()
    monkeypatch.undo()
    assert karpathy(coco) == 0 and not part.exists()


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_finished_files_are_not_written_again(coco, monkeypatch):
    karpathy(coco)
    stamp = (coco / "out/caption_val.tsv").stat().st_mtime_ns
    monkeypatch.setattr(
        tsv_writer, "base64_of_file", lambda path: pytest.fail("reads an image again")
    )
    assert karpathy(coco) == 0
    assert (coco / "out/caption_val.tsv").stat().st_mtime_ns == stamp


def test_other_captions_make_new_files(coco):
    karpathy(coco)
    changed = (coco / "karpathy.json").read_text().replace("Trees", "Three trees")
    (coco / "karpathy.json").write_text(changed)
    assert karpathy(coco) == 0
    assert rows(coco / "out/caption_test.tsv")[0][2] == "Three trees"


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "not a readable image"),
        (lambda path: path.write_text("<html>not found</html>"), "not a readable image"),
    ],
    ids=["missing", "truncated", "no-image"],
)
def test_a_broken_image_is_named_and_nothing_is_written(coco, capsys, damage, words):
    damage(coco / "images/val2014/c.jpg")
    assert karpathy(coco) == 2
    message = capsys.readouterr().err
    assert "c.jpg" in message and words in message and "--skip-broken" in message
    assert not (coco / "out").exists()


def test_broken_images_can_be_left_out(coco):
    (coco / "images/val2014/a.jpg").unlink()
    assert karpathy(coco, "--skip-broken") == 0
    assert [row[1] for row in rows(coco / "out/caption_stage2_train.tsv")] == ["11"]
    assert json.loads((coco / "out/manifest.json").read_text())["counts"]["images_left_out"] == 1


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("karpathy.json", None, "no readable file"),
        ("karpathy.json", "{", "expected JSON"),
        ("karpathy.json", "[]", "keys images"),
        ("karpathy.json", '{"images": [{"filename": "a.jpg"}]}', "'split'"),
    ],
)
def test_a_bad_annotation_file_is_one_message(coco, capsys, name, content, words):
    (coco / name).unlink() if content is None else (coco / name).write_text(content)
    assert karpathy(coco) == 2
    message = capsys.readouterr().err
    assert name in message and words in message and "Traceback" not in message
    assert not (coco / "out").exists()


def test_synthetic_shapes_are_written_the_same_by_one_or_two_processes(tmp_path):
    world = [
        "prepare",
        "synthetic-shapes",
        "--train",
        "300",
        "--val",
        "3",
        "--test",
        "4",
        "--size",
        "32",
        "--out",
    ]
    assert main([*world, str(tmp_path / "one"), "--jobs", "1"]) == 0
    assert main([*world, str(tmp_path / "two"), "--jobs", "2"]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "scenes.jsonl" in names and "captions.txt" in names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert len(rows(tmp_path / "one/caption_stage1_train.tsv")) == 1500
    assert len(rows(tmp_path / "one/caption_test.tsv")[0][2].split("&&")) == 5
    questions, boxes = (
        rows(tmp_path / "one/vqa_train.tsv"),
        rows(tmp_path / "one/refcoco_train.tsv"),
    )
    assert (
        len(questions) == 900
        and {len(row) for row in questions} == {6}
        and {len(row) for row in boxes} == {5}
    )
    labels = json.loads((tmp_path / "one/ans2label.json").read_text())
    assert {row[3].removeprefix("1.0|!+") for row in questions} <= set(labels)
    images = {row[1]: row[4] for row in rows(tmp_path / "one/caption_stage2_train.tsv")}
    assert all(images[row[1]] == row[5] for row in questions) and all(
        images[row[1]] == row[4] for row in boxes
    )
    for row in boxes:
        x0, y0, x1, y1 = map(float, row[3].split(","))
        assert 0 <= x0 < x1 <= 32 and 0 <= y0 < y1 <= 32
    assert len({row[0] for row in questions}) == 900 and len({row[0] for row in boxes}) == len(
        boxes
    )


def test_interrupted_synthetic_shapes_are_continued(tmp_path):
    world = [
        "prepare",
        "synthetic-shapes",
        "--train",
        "30",
        "--val",
        "3",
        "--test",
        "4",
        "--size",
        "32",
        "--out",
    ]
    assert main([*world, str(tmp_path / "whole")]) == 0
    assert main([*world, str(tmp_path / "again")]) == 0
    manifest = json.loads((tmp_path / "again/manifest.json").read_text())
    whole = (tmp_path / "again/vqa_train.tsv").read_bytes()
    (tmp_path / "again/vqa_train.tsv").unlink()
    (tmp_path / "again/vqa_train.tsv.part").write_bytes(whole[: len(whole) // 2])
    del manifest["files"]["vqa_train.tsv"]
    (tmp_path / "again/manifest.json").write_text(json.dumps({**manifest, "finished": False}))
    assert main([*world, str(tmp_path / "again")]) == 0
    for path in (tmp_path / "whole").glob("*.tsv"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


# ----------------------------------------------------------------- files of others


def manifest(folder, **more) -> str:
    """A manifest of another plan, as it might lie in a folder that somebody downloaded."""
    folder.mkdir(exist_ok=True)
    content = json.dumps(
        {"made_by": "ofa prepare x", "plan": "other", "finished": True, "counts": {}, "files": {}}
        | more
    )
    (folder / "manifest.json").write_text(content)
    return content


@pytest.mark.parametrize("key", ["files", "begun"])
@pytest.mark.parametrize(
    "name",
    [
        "../thesis.txt",
        "{home}/thesis.txt",
        "link/thesis.txt",
        "linked.txt",
        "thesis.tex",
        "folder.txt",
        "",
        "a\0.txt",
    ],
)
def test_a_manifest_that_names_files_of_others_deletes_none(coco, capsys, key, name):
    out = coco / "out"
    (coco / "home").mkdir()
    kept = [
        coco / "thesis.txt",
        coco / "home/thesis.txt",
        coco / "thesis.txt.part",
        coco / "home/thesis.txt.part",
    ]
    name = name.format(home=coco / "home")
    content = manifest(
        out, **{key: {name: {"rows": 1, "bytes": 4, "sha256": ""}} if key == "files" else [name]}
    )
    for path in [*kept, out / "thesis.tex", out / "thesis.tex.part"]:
        path.write_text("text")
    (out / "link").symlink_to(coco / "home")
    for ending in ("", ".part"):
        (out / f"linked.txt{ending}").symlink_to(coco / "thesis.txt")
        (out / f"folder.txt{ending}").mkdir()
    before = sorted(path.name for path in out.iterdir())
    assert karpathy(coco) == 2
    message = capsys.readouterr().err
    assert (
        len(message.splitlines()) == 1
        and "manifest.json: expects the name of a file below" in message
    )
    assert (
        all(path.read_text() == "text" for path in kept)
        and sorted(path.name for path in out.iterdir()) == before
    )
    assert (out / "manifest.json").read_text() == content


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[",
        "[]",
        "7",
        "[" * 100_000,
        '{"manifest_version": 3, "name": "an extension"}',
        '{"made_by": "ofa tokenizer decode", "images": []}',
        '{"made_by": "ofa prepare x", "plan": "p", "finished": true, "counts": {}, "files": ["a"]}',
        (
            '{"made_by": "ofa prepare x", "plan": "p", "finished": true, "counts": {}, "files":'
            ' {"a.txt": {"rows": 1, "bytes": 1e400}}}'
        ),
        (
            '{"made_by": "ofa prepare x", "plan": "p", "finished": true, "counts": {}, "files":'
            ' {"a.txt": {"rows": 1, "bytes": -1}}}'
        ),
    ],
    ids=lambda content: "",
)
def test_a_manifest_of_another_kind_stays_and_is_named(coco, capsys, content):
    (coco / "out").mkdir()
    (coco / "out/manifest.json").write_text(content)
    assert karpathy(coco) == 2
    assert (
        "manifest.json: expected the manifest of an earlier call, found something else"
        in capsys.readouterr().err
    )
    assert (coco / "out/manifest.json").read_text() == content


@pytest.mark.parametrize(
    "name", ["caption_val.tsv", "caption_stage1_train.tsv.part", "captions.txt"]
)
def test_a_file_of_others_is_not_overwritten(coco, capsys, name):
    (coco / "out").mkdir()
    (coco / "out" / name).write_text("by hand")
    assert karpathy(coco) == 2
    assert (
        f"{name}: expected no such file, found one that manifest.json does not list"
        in capsys.readouterr().err
    )
    assert (coco / "out" / name).read_text() == "by hand"


def test_parts_of_others_stay_when_another_plan_begins(coco):
    karpathy(coco)
    (coco / "out/film.mp4.part").write_text("a download")
    (coco / "karpathy.json").write_text(
        (coco / "karpathy.json").read_text().replace("Trees", "Three trees")
    )
    assert karpathy(coco) == 0 and (coco / "out/film.mp4.part").read_text() == "a download"


def test_a_file_that_was_changed_by_hand_is_not_deleted_by_another_plan(coco, capsys):
    karpathy(coco)
    with open(coco / "out/captions.txt", "a") as file:
        file.write("one more\n")
    (coco / "karpathy.json").write_text(
        (coco / "karpathy.json").read_text().replace("Trees", "Three trees")
    )
    assert karpathy(coco) == 2
    assert (
        "captions.txt: expected" in (message := capsys.readouterr().err)
        and "it was changed" in message
    )
    assert (coco / "out/captions.txt").read_text().endswith("one more\n") and (
        coco / "out/caption_val.tsv"
    ).exists()


@pytest.mark.parametrize(
    "name",
    ["../other/a.jpg", "{root}/other/a.jpg", "val2014/../../other/a.jpg", "", 7, None, ["a.jpg"]],
)
@pytest.mark.parametrize("way", ["annotations", "split"])
def test_annotations_name_no_images_outside_of_their_folder(coco, capsys, name, way):
    (coco / "other").mkdir()
    (coco / "images/val2014/a.jpg").rename(coco / "other/a.jpg")
    name = name.format(root=coco) if isinstance(name, str) else name
    path, key = (
        (coco / "captions.json", "file_name")
        if way == "annotations"
        else (coco / "karpathy.json", "filename")
    )
    content = json.loads(path.read_text())
    content["images"][0] |= {key: name} | ({"filepath": ""} if way == "split" else {})
    path.write_text(json.dumps(content))
    options = (
        (
            "--annotations",
            str(coco / "captions.json"),
            "--val-fraction",
            "0.25",
            "--test-fraction",
            "0.25",
        )
        if way == "annotations"
        else ("--split", str(path))
    )
    assert prepare(coco, *options) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (coco / "out").exists()
