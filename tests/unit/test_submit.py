"""``ofa submit``: exactly the leaderboards' format, or one message that says what is missing or
double."""

import json
import re
import zipfile

import pytest

from ofa.cli.main import main
from ofa.task.results import write_json


def result_file(folder, name: str, entries: list) -> str:
    write_json(folder / name, entries)
    return str(folder / name)


def captions(*ids) -> list[dict]:
    return [{"image_id": str(number), "caption": f"image {number}"} for number in ids]


def answers(*ids) -> list[dict]:
    return [{"question_id": number, "answer": "yes", "score": -0.25} for number in ids]


def test_coco_captions_become_a_zip_with_numbers_as_ids(tmp_path, capsys):
    val, test = (
        result_file(tmp_path, "val.json", captions(9, 5)),
        result_file(tmp_path, "test.json", captions("COCO_test2014_000000000007")),
    )
    out = tmp_path / "deep/upload.zip"
    assert (
        main(
            [
                "submit",
                "coco",
                "--val2014",
                val,
                "--test2014",
                test,
                "--name",
                "fakecap",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [
            "captions_val2014_fakecap_results.json",
            "captions_test2014_fakecap_results.json",
        ]
        found = [json.loads(archive.read(name)) for name in archive.namelist()]
    assert found[0] == [
        {"image_id": 9, "caption": "image 9"},
        {"image_id": 5, "caption": "image 5"},
    ]
    assert [entry["image_id"] for entry in found[1]] == [7]
    assert "val2014: 2 captions" in capsys.readouterr().out


def test_equal_results_make_equal_zips(tmp_path):
    val = result_file(tmp_path, "val.json", captions(1))
    for name in ("a.zip", "b.zip"):
        assert main(["submit", "coco", "--val2014", val, "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_incomplete_split_is_noticed_even_without_a_list(tmp_path, caplog):
    val = result_file(tmp_path, "val.json", captions(1))
    assert main(["submit", "coco", "--val2014", val, "--out", str(tmp_path / "a.zip")]) == 0
    assert "40504" in caplog.text and "--test2014" in caplog.text


def test_vqa_answers_become_one_list_without_our_own_keys(tmp_path, capsys):
    parts = [
        result_file(tmp_path, "a.json", answers(3, 1)),
        result_file(tmp_path, "b.json", answers("2")),
    ]
    questions = result_file(
        tmp_path, "q.json", {"questions": [{"question_id": number} for number in (1, 2, 3)]}
    )
    out = tmp_path / "answers.json"
    assert main(["submit", "vqa", *parts, "--questions", questions, "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == [
        {"question_id": number, "answer": "yes"} for number in (3, 1, 2)
    ]
    assert "3 answers, one for every question" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entries", "listed", "words"),
    [
        (
            answers(1, 2, 2),
            None,
            r"r\.json: expects every question once, found 1 more than once \(2\)",
        ),
        (answers(1), (1, 2, 3), r"each of 3 questions, found 2 missing \(2, 3\)"),
        (answers(1, 2, 9), (1, 2), r"found 1 of another split \(9\)"),
        (
            answers("img7"),
            None,
            r"entry 1: expects the number of a question as 'question_id', found 'img7'",
        ),
        (
            captions(1),
            None,
            r"entry 1: expects 'question_id' and 'answer', found image_id, caption",
        ),
        ([7], None, r"entry 1: expects 'question_id' and 'answer', found 7"),
        ({"a": 1}, None, r"expected a JSON list of predictions, found"),
        *(
            (answers(number), None, r"entry 1: expects the number of a question")
            for number in ("１２", "9" * 5000, 10**30, 1.5, True, None)
        ),
        *(
            (answers(1), [number], r"q\.json: expected a file of the data set")
            for number in (1.5, "1_0", True, 10**30, None, "１")
        ),
    ],
    ids=[
        "twice",
        "missing",
        "foreign",
        "no-number",
        "other-task",
        "no-entry",
        "no-list",
        *(f"number{number}" for number in range(6)),
        *(f"listed{number}" for number in range(6)),
    ],
)
def test_what_is_wrong_with_vqa_results_is_one_message(tmp_path, capsys, entries, listed, words):
    results = result_file(tmp_path, "r.json", entries)
    options = []
    if listed:
        options = [
            "--questions",
            result_file(tmp_path, "q.json", {"questions": [{"question_id": n} for n in listed]}),
        ]
    assert main(["submit", "vqa", results, *options, "--out", str(tmp_path / "out.json")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1 and re.search(words, message), message
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "expects --val2014 RESULTS, --test2014 RESULTS or both"),
        (["--val2014", "nowhere.json"], r"nowhere\.json: expected a JSON list of predictions"),
        (["--val2014", "val.json", "--name", "my_method"], "--name: expects letters, digits"),
        (
            ["--val2014", "val.json", "--val2014-images", "val.json"],
            r"val\.json: expected a file of the data set with 'images'",
        ),
        (
            ["--val2014", "val.json", "--val2014-images", "none.json"],
            r"none\.json: expected a file of the data set",
        ),
        (["--val2014", "val.json", "--val2014-images", "images.json"], r"1 missing \(2\)"),
        (
            ["--val2014", "val.json", "--test2014-images", "images.json"],
            "--test2014-images: expects --test2014 RESULTS beside it",
        ),
    ],
)
def test_what_is_wrong_with_coco_results_is_one_message(
    tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    result_file(tmp_path, "val.json", captions(1))
    result_file(tmp_path, "images.json", {"images": [{"id": 1}, {"id": 2}]})
    assert main(["submit", "coco", *options, "--out", "out.zip"]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1 and re.search(words, message), message
    assert not (tmp_path / "out.zip").exists()


def test_a_result_folder_that_cannot_be_written_is_one_message(tmp_path, capsys):
    results = result_file(tmp_path, "r.json", answers(1))
    (tmp_path / "file").write_text("")
    assert main(["submit", "vqa", results, "--out", str(tmp_path / "file/out.json")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1 and str(tmp_path / "file") in message
