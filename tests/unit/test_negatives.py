"""``ofa negatives build``: captions, objects and answers of training rows, as pretraining draws
wrong ones from."""

import json

import pytest

from ofa.cli.main import main
from ofa.errors import UserError
from ofa.prepare.negatives import NegativeSamples, question_kind

IMAGE = "iVBORw0KGgo" * 6000  # longer than what is read at either end of a row


def pair(
    number: int,
    caption: str = "",
    question: str = "",
    answers: str = "",
    objects: str = "",
    kind: str = "caption",
) -> list[str]:
    return [str(number), IMAGE, caption, question, answers, objects, "coco", kind]


PAIRS = [
    pair(0, "Two dogs   play.", objects="dog&&ball"),
    pair(1, question="How many dogs are there?", answers="1.0|!+2&&0.3|!+3", kind="qa"),
    pair(2, "a red house", objects="house"),
    pair(3, question="how many cats", answers="1.0|!+3", kind="qa"),
    pair(4, "Two dogs play."),
    pair(5, question="Is it red?", answers="1.0|!+yes", kind="qa"),
    pair(6, question="Does it rain?", answers="1.0|!+no", kind="qa"),
    pair(7, "the left dog", answers="1,2,3,4", kind="visual_grounding"),
    pair(8, question="What color is it?", answers="0.6|!+yes&&1.0|!+red", kind="qa"),
    pair(9, question="Is it red or blue?", answers="1.0|!+blue", kind="qa"),
    pair(10, question="What color is the sky?", answers="1.0|!+blue", kind="qa"),
    pair(11, question="what color", answers="1.0|!+blue", kind="qa"),
    pair(12, question="What color is that?", answers="1.0|!+blue", kind="qa"),
    pair(13, question="Where is it?", answers="1.0|!+on the table", kind="qa"),
    pair(14, question="Who runs?", answers="1.0|!+a man", kind="qa"),
]
DETECTIONS = [
    ["d0", IMAGE, "1,2,3,4,17,cat&&1,2,3,4,5,traffic light"],
    ["d1", IMAGE, "0,0,9,9,3,dog"],
]


def write_rows(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def build(tmp_path):
    """Function: options -> exit status; writes to ``tmp_path / "out"``."""

    def run(*options: str, pairs=PAIRS) -> int:
        data, detection = (
            write_rows(tmp_path / "vl.tsv", pairs),
            write_rows(tmp_path / "d.tsv", DETECTIONS),
        )
        return main(
            [
                "negatives",
                "build",
                "--data",
                data,
                "--detection",
                detection,
                "--out",
                str(tmp_path / "out"),
                *options,
            ]
        )

    return run


def test_every_caption_and_object_stands_once_and_answers_stand_by_their_question(
    tmp_path, build, capsys
):
    assert build() == 0
    assert (tmp_path / "out" / "all_captions.txt").read_text() == "Two dogs play.\na red house\n"
    assert (tmp_path / "out" / "object.txt").read_text() == "ball\ncat\ndog\nhouse\ntraffic light\n"
    assert json.loads((tmp_path / "out" / "type2ans.json").read_text()) == {
        "how many": ["2", "3"],
        "what color": ["blue", "red"],
        "yes or no": ["no", "yes"],
        "other": ["a man", "on the table"],
    }
    assert capsys.readouterr().out.endswith("out: 2 captions, 5 objects, 8 answers\n")


def test_the_same_rows_make_the_same_files_and_are_not_read_again(tmp_path, build, capsys):
    build()
    first = {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "out").iterdir()
    }
    rows = tmp_path / "vl.tsv"
    status = rows.stat()
    assert (
        main(
            [
                "negatives",
                "build",
                "--data",
                str(rows),
                "--detection",
                str(tmp_path / "d.tsv"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert "already complete" in capsys.readouterr().out
    assert first == {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "out").iterdir()
    }
    assert status.st_mtime_ns == rows.stat().st_mtime_ns
    assert build(pairs=PAIRS[:3]) == 0  # other rows: made anew
    assert json.loads((tmp_path / "out" / "type2ans.json").read_text()) == {"other": ["2"]}


def test_shards_make_the_same_files_as_their_tsv(tmp_path, build):
    build()
    expected = {
        path.name: path.read_bytes()
        for path in (tmp_path / "out").iterdir()
        if path.name != "negative_samples.json"
    }
    for name in ("vl", "d"):
        assert (
            main(
                [
                    "pack",
                    str(tmp_path / f"{name}.tsv"),
                    "--out",
                    str(tmp_path / name),
                    "--shard-rows",
                    "4",
                    "--jobs",
                    "1",
                ]
            )
            == 0
        )
    for _ in range(2):
        assert (
            main(
                [
                    "negatives",
                    "build",
                    "--data",
                    str(tmp_path / "vl"),
                    "--detection",
                    str(tmp_path / "d" / "d-*.tar"),
                    "--out",
                    str(tmp_path / "other"),
                ]
            )
            == 0
        )
    assert {
        path.name: path.read_bytes()
        for path in (tmp_path / "other").iterdir()
        if path.name in expected
    } == expected


def test_a_build_that_stops_leaves_the_old_files_whole_and_nothing_that_says_it_is_done(
    tmp_path, build, capsys
):
    build()
    old = (tmp_path / "out" / "object.txt").read_text()
    assert build(pairs=[*PAIRS, pair(15, "x", kind="speech")]) == 2
    assert (
        "vl.tsv:16: expected one of the types caption, qa, visual_grounding, found 'speech'"
        in capsys.readouterr().err
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "all_captions.txt",
        "object.txt",
        "type2ans.json",
    }
    assert (tmp_path / "out" / "object.txt").read_text() == old


def test_broken_objects_and_answers_are_named(tmp_path, build, capsys):
    assert build(pairs=[pair(0, question="who?", answers="much|!+yes", kind="qa")]) == 2
    assert "vl.tsv:1: expects answers 'confidence" in capsys.readouterr().err
    with (
        NegativeSamples() as found,
        pytest.raises(ValueError, match="d.tsv:3: expected objects x0,y0,x1,y1,category,name"),
    ):
        found.add_detections("1,2,3,4,17", "d.tsv:3")


def test_types_are_understood_as_in_training(tmp_path, build, capsys):
    assert (
        build(
            pairs=[
                *PAIRS[:6],
                pair(6, "the left dog", answers="1,2,3,4", objects="cow", kind="visual gronunding"),
            ]
        )
        == 0
    )
    assert "cow\n" in (tmp_path / "out" / "object.txt").read_text()
    assert build(pairs=[pair(0, kind="speech")]) == 2
    assert (
        "vl.tsv:1: expected one of the types caption, qa, visual_grounding, found 'speech'"
        in capsys.readouterr().err
    )


def test_columns_may_stand_elsewhere(tmp_path, capsys):
    rows = write_rows(
        tmp_path / "vl.tsv", [[row[7], row[2], row[1], row[0], *row[3:7]] for row in PAIRS]
    )
    assert (
        main(
            [
                "negatives",
                "build",
                "--data",
                rows,
                "--selected-cols",
                "3,2,1,4,5,6,7,0",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert (tmp_path / "out" / "object.txt").read_text() == "ball\ndog\nhouse\n"
    assert (
        main(
            [
                "negatives",
                "build",
                "--data",
                rows,
                "--selected-cols",
                "3,2",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "--selected-cols=3,2: expects 8 columns, found 2" in capsys.readouterr().err


def test_files_of_one_kind_of_rows_are_written_with_a_warning(build, caplog):
    assert build(pairs=PAIRS[:1]) == 0
    assert (
        "all_captions.txt: 1 entries, too few" in caplog.text
        and "type2ans.json: 0 entries" in caplog.text
    )


def test_other_always_has_a_wrong_answer_to_offer():
    with NegativeSamples() as found:
        for answer in ("yes", "no"):
            found.add_pair(
                {
                    "type": "qa",
                    "question": "is it?",
                    "answers": f"1|!+{answer}",
                    "objects": "",
                    "caption": "",
                }
            )
        assert found.answers_by_kind() == {"yes or no": ["no", "yes"], "other": ["no", "yes"]}


@pytest.mark.parametrize(
    "question, kind",
    [
        ("How many dogs?", "how many"),
        ("...What color?", "what color"),
        ("Is it?", "yes or no"),
        ("Why?", "why"),
        ("?", "other"),
        ("", "other"),
    ],
)
def test_a_question_is_of_the_kind_that_it_begins_with(question, kind):
    assert question_kind(question) == kind


def test_files_of_others_are_kept_and_a_manifest_of_another_kind_changes_nothing(
    tmp_path, build, caplog
):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("all_captions.txt", "object.txt", "type2ans.json"):
        (out / name).write_text("of upstream")
    (out / "negative_samples.json").write_text('["../vl.tsv"]')
    assert build() == 0 and build(pairs=PAIRS[:3]) == 0
    assert [
        (out / f"{name}.old").read_text()
        for name in ("all_captions.txt", "object.txt", "type2ans.json")
    ] == ["of upstream"] * 3
    assert (
        (out / "object.txt").read_text() != "of upstream"
        and "object.txt: not made by ofa negatives build, kept as object.txt.old" in caplog.text
    )


@pytest.mark.parametrize("value", [None, float("nan"), True, ["red"], {"a": 1}])
def test_an_answer_that_is_no_text_is_named_by_training_and_doctor(tmp_path, value):
    from ofa.data.negatives import read_answers
    from ofa.doctor.assets import check_negatives

    path = tmp_path / "type2ans.json"
    path.write_text(json.dumps({"other": ["yes", 2, value]}))
    with pytest.raises(UserError, match=r"type2ans\.json: expects an answer, found"):
        read_answers(path)
    assert check_negatives(str(tmp_path))[-1].counts == {"negatives-json": 1}
    path.write_text('{"other": ["yes", 2, {"answer": "no"}]}')
    assert read_answers(path) == {"other": ["yes", "2", "no"]}
