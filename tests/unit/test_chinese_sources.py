"""``ofa prepare muge | refcoco-cn`` and ``ofa submit muge``: published files in, upstream
columns out."""

import base64
import json

import pytest
from caption_files import make_image

from ofa.cli.main import main
from ofa.io.image_files import ImageFolders, read_image

CAPTIONS = {"a1": ["蕾丝元素，时尚气质", "性感名媛风"], "b2": "红色 连衣裙"}


def write_lines(path, entries) -> str:
    path.write_text(
        "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8"
    )
    return str(path)


def write_table(path, *rows) -> str:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def muge(folder, *more: str, texts=CAPTIONS) -> int:
    train = write_lines(
        folder / "IC_train.jsonl",
        [{"image_id": name, "text": text} for name, text in texts.items()],
    )
    images = write_table(
        folder / "IC_train.tsv",
        ("a1", make_image("red")),
        ("b2", make_image("blue").replace("+", "-").replace("/", "_")),
    )
    test = write_table(
        folder / "IC_test.tsv", ("t9", make_image("green")), ("t1", make_image("white"))
    )
    return main(
        [
            "prepare",
            "muge",
            "--train",
            train,
            "--test",
            test,
            "--images",
            images,
            "--out",
            str(folder / "out"),
            *more,
        ]
    )


def test_muge_becomes_caption_files_with_its_images(tmp_path):
    assert muge(tmp_path) == 0
    stage1 = rows(tmp_path / "out/caption_stage1_train.tsv")
    assert [row[:4] for row in stage1] == [
        ["a1_0", "a1", "蕾丝元素，时尚气质", ""],
        ["a1_1", "a1", "性感名媛风", ""],
        ["b2_0", "b2", "红色 连衣裙", ""],
    ]
    assert [row[4] for row in stage1] == [make_image("red"), make_image("red"), make_image("blue")]
    assert [row[2] for row in rows(tmp_path / "out/caption_stage2_train.tsv")] == [
        "蕾丝元素，时尚气质&&性感名媛风",
        "红色 连衣裙",
    ]
    test = rows(tmp_path / "out/caption_test.tsv")
    assert [row[1:3] for row in test] == [["t9", ""], ["t1", ""]] and test[0][4] == make_image(
        "green"
    )
    assert not (tmp_path / "out/test_caption_coco_format.json").exists()
    assert (tmp_path / "out/captions.txt").read_text(encoding="utf-8").split("\n")[
        1
    ] == "性感名媛风"


@pytest.mark.parametrize(
    "texts, message",
    [
        ({"zz": "无图"}, "IC_train.jsonl:1: expected an image 'zz' below"),
        ({"a1": []}, "IC_train.jsonl:1: expected a text, found none"),
        ({"a1": {"zh": "x"}}, "IC_train.jsonl:1: expected {"),
    ],
)
def test_what_cannot_be_a_row_is_named_or_left_out(tmp_path, capsys, texts, message):
    assert muge(tmp_path, texts=texts) == 2
    assert message in capsys.readouterr().err
    assert muge(tmp_path, "--skip-broken", texts={"b2": "红色", **texts}) == 0
    assert len(rows(tmp_path / "out/caption_stage1_train.tsv")) == 1


def test_a_broken_image_is_named_with_its_row(tmp_path, capsys):
    train = write_lines(tmp_path / "t.jsonl", [{"image_id": "a", "text": "狗"}])
    for number, content in enumerate(("bm90IGEgcGljdHVyZQ==", "///", "b'%'")):
        table = write_table(tmp_path / f"p{number}.tsv", ("x", make_image("red")), ("a", content))
        assert (
            main(
                [
                    "prepare",
                    "muge",
                    "--train",
                    train,
                    "--images",
                    table,
                    "--out",
                    str(tmp_path / "o"),
                ]
            )
            == 2
        )
        assert f"p{number}.tsv:2@" in capsys.readouterr().err


def test_tables_of_images_are_found_by_id_and_refused_where_they_are_wrong(tmp_path):
    table = write_table(tmp_path / "p.tsv", ("a", make_image("red")), ("b.jpg", make_image("blue")))
    images = ImageFolders([table])
    assert read_image(images.find("a.jpg")) == base64.b64decode(make_image("red"))
    assert (
        read_image(images.find("b.jpg")) == base64.b64decode(make_image("blue"))
        and images.find("c") is None
    )
    for content, message in (
        (("a", "x"), "expected every image once, found 'a' again"),
        (("c",), r"p.tsv:3: expected an image in base64"),
    ):
        write_table(
            tmp_path / "p.tsv", ("a", make_image("red")), ("b", make_image("blue")), content
        )
        with pytest.raises(Exception, match=message):
            ImageFolders([table]).find("a")


def test_muge_uploads_are_lines_of_ids_and_texts(tmp_path, capsys):
    results, images = (
        tmp_path / "test_predict.json",
        write_table(tmp_path / "IC_test.tsv", ("t9", make_image("red")), ("t1", make_image("red"))),
    )
    results.write_text(
        json.dumps(
            [
                {"image_id": "t9", "caption": "红色的裙子，夏天"},
                {"image_id": "t1", "caption": "t恤"},
            ]
        )
    )
    assert (
        main(
            [
                "submit",
                "muge",
                str(results),
                "--images",
                images,
                "--out",
                str(tmp_path / "IC_test.jsonl"),
            ]
        )
        == 0
    )
    assert (tmp_path / "IC_test.jsonl").read_text(encoding="utf-8").splitlines() == [
        '{"image_id": "t9", "text": "红色的裙子，夏天"}',
        '{"image_id": "t1", "text": "t恤"}',
    ]
    results.write_text(json.dumps([{"image_id": "t9", "caption": "裙子"}]))
    assert (
        main(
            [
                "submit",
                "muge",
                str(results),
                "--images",
                images,
                "--out",
                str(tmp_path / "no.jsonl"),
            ]
        )
        == 2
    )
    assert "1 missing (t1)" in capsys.readouterr().err and not (tmp_path / "no.jsonl").exists()


# ------------------------------------------------------------------------------------------
# RefCOCO-CN


def refcoco_cn(folder, *arguments: str) -> int:
    return main(["prepare", "refcoco-cn", "--out", str(folder / "out"), *arguments])


def test_published_files_and_json_lines_become_the_same_columns(tmp_path):
    image = make_image("red")  # 40 x 30 pixels
    published = write_table(
        tmp_path / "val.tsv",
        ("7_0", "左边的红色汽车", "1.5,2,20,25.0", image),
        ("7_1", "中间的人", "0,0,40.4,30", image),
    )
    lines = write_lines(
        tmp_path / "train.jsonl",
        [
            {"id": "8_0", "image": "a", "text": "右边的狗", "bbox": [1, 2, 10, 20]},
            {"id": "8_1", "image": "a", "text": "猫", "bbox": [0, 0, 5, 5]},
        ],
    )
    table = write_table(tmp_path / "images.tsv", ("a", image))
    assert (
        refcoco_cn(
            tmp_path,
            "--train",
            lines,
            "--testA",
            published,
            "--images",
            table,
            "--columns",
            "box=bbox",
            "--box-format",
            "xywh",
        )
        == 0
    )
    assert rows(tmp_path / "out/refcoco_cn_train.tsv") == [
        ["8_0", "右边的狗", "1.0,2.0,11.0,22.0", image],
        ["8_1", "猫", "0.0,0.0,5.0,5.0", image],
    ]
    assert rows(tmp_path / "out/refcoco_cn_testA.tsv") == [
        ["7_0", "左边的红色汽车", "1.5,2.0,20.0,25.0", image],
        ["7_1", "中间的人", "0.0,0.0,40.0,30.0", image],
    ]


@pytest.mark.parametrize(
    "row, message",
    [
        (("1", "狗", "1,2,3"), "val.tsv:1: expected a box of four numbers, found '1,2,3'"),
        (("1", "狗", "30,2,10,9"), "val.tsv:1: expected a box with x0 < x1"),
        (("1", " ", "3,2,10,9"), "val.tsv:1: expected a text in column 1"),
        (("1", "狗", "3,2,100,9"), "val.tsv:1: expected a box inside the image"),
    ],
)
def test_wrong_rows_of_a_published_file_are_named(tmp_path, capsys, row, message):
    path = write_table(tmp_path / "val.tsv", (*row, make_image("red")))
    assert refcoco_cn(tmp_path, "--val", path) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_json_lines_without_images_are_one_message(tmp_path, capsys):
    assert (
        refcoco_cn(
            tmp_path,
            "--val",
            write_lines(tmp_path / "v.jsonl", [{"image": "a", "text": "狗", "box": [1, 2, 3, 4]}]),
        )
        == 2
    )
    assert "expected --images with the images" in capsys.readouterr().err


def test_the_doctor_reads_chinese_files_and_says_what_is_empty(tmp_path, capsys):
    good = write_table(
        tmp_path / "refcoco_cn_val.tsv",
        ("7_0", "左边的红色汽车", "1.5,2,20,25.0", make_image("red")),
    )
    assert main(["doctor", good, "--task", "refcoco", "--selected-cols", "0,3,1,2"]) == 0
    captions = write_table(
        tmp_path / "caption_val.tsv",
        ("1_0", "1", "。。！", "", make_image("red")),
        ("2_0", "2", "红色的裙子。", "", make_image("red")),
    )
    capsys.readouterr()
    assert main(["doctor", captions]) != 0
    assert "caption_val.tsv:1:2 text-empty - expected words" in capsys.readouterr().out
