"""``ofa prepare ocr``: lists of images and texts, in the forms in which they are published,
become training files."""

import base64

import pytest
from original_data import write_images

from ofa.cli.main import main

NAMES = {1: "words/a.png", 2: "words/b.png", 3: "c.jpg"}


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "photos", NAMES)
    return tmp_path


def run(folder, content: str, *options, split: str = "train") -> int:
    (folder / "photos/list.txt").write_text(content, encoding="utf-8")
    return main(
        [
            "prepare",
            "ocr",
            f"--{split}",
            str(folder / "photos/list.txt"),
            "--out",
            str(folder / "out"),
            "--jobs",
            "1",
            *options,
        ]
    )


def rows(folder, split: str = "train") -> list[list[str]]:
    return [
        line.split("\t") for line in (folder / f"out/ocr_{split}.tsv").read_text().split("\n")[:-1]
    ]


@pytest.mark.parametrize(
    "content, found",
    [
        (
            'words/a.png\tOpen  Daily\nwords/b.png\t营业时间\n\nc.jpg\t"5, 6"\n',
            {1: "Open Daily", 2: "营业时间", 4: '"5, 6"'},
        ),
        (
            '\ufeffa.png, "Open, daily"\nb.png, "###"\nc.jpg, "say \\"hi\\""\n',
            {1: "Open, daily", 3: 'say "hi"'},
        ),
        ("a.png open daily\nwords/b.png STOP\n", {1: "open daily", 2: "STOP"}),
    ],
    ids=["tabs", "icdar", "spaces"],
)
def test_lists_of_every_form_become_rows(folder, content, found):
    assert run(folder, content, split="val") == 0
    assert [(row[0], row[2]) for row in rows(folder, "val")] == [
        (f"val_{number}", text) for number, text in found.items()
    ]
    assert (
        base64.b64decode(rows(folder, "val")[0][1]) == (folder / "photos/words/a.png").read_bytes()
    )
    assert main(["doctor", str(folder / "out/ocr_val.tsv")]) == 0


@pytest.mark.parametrize(
    "content, words",
    [
        (
            "words/a.png\tOpen\nwords/b.png\t \n",
            "list.txt:2: expected an image and its text, found 'words/b.png",
        ),
        ("words/a.png\n", "list.txt:1: expected an image and its text"),
        ("words/z.png\tOpen\n", "list.txt:1: expected an image 'words/z.png' below"),
        ("\n", "found an empty file"),
        ("d.png\tOpen\n", "1 of the images cannot be used"),
    ],
)
def test_a_wrong_list_is_one_message_and_nothing_is_written(folder, capsys, content, words):
    (folder / "photos/d.png").write_bytes((folder / "photos/c.jpg").read_bytes()[:300])
    assert run(folder, content) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("error: ") == 1 and not (folder / "out").exists()


def test_wrong_entries_may_be_left_out(folder):
    assert (
        run(
            folder,
            "z.png\tOpen\na.png\tSTOP\nb.png\t\n",
            "--skip-broken",
            "--images",
            str(folder / "photos/words"),
        )
        == 0
    )
    assert [row[2] for row in rows(folder)] == ["STOP"]


def test_a_list_is_needed(tmp_path, capsys):
    assert main(["prepare", "ocr", "--out", str(tmp_path / "out")]) == 2
    assert "expected one of --train, --val, --test" in capsys.readouterr().err
