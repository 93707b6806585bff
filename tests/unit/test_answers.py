"""Sets of answers: made from files, checked against them, read safely, the same every time."""

import json
import pickle

import pytest
from answer_files import vqa_row, write_rows

from ofa.cli.main import main
from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.task.answers import AnswerSet, MissingAnswers, read_label_file
from ofa.task.text import learned_answer, parse_answers


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text if letter != "?"]


def test_a_set_knows_its_answers_and_what_may_follow():
    answers = AnswerSet(["yes", "no", "none"], letters)
    assert (
        len(answers) == 3 and answers.length_of("none") == 5 and answers.length_of("maybe") is None
    )
    assert answers.allowed_after(letters(" n")) == [ord("o")]
    assert sorted(answers.allowed_after(letters(" no"))) == [2, ord("n")] and answers.allowed_after(
        letters(" q")
    ) == [2]


@pytest.mark.parametrize("texts, finding", [([], "no answer at all"), (["yes", "??"], "'\\?\\?'")])
def test_a_set_needs_answers_with_tokens(texts, finding):
    with pytest.raises(UserError, match=finding):
        AnswerSet(texts, lambda text: letters(text.strip()))


def test_what_two_processes_find_missing_adds_up():
    found, other = (MissingAnswers({"yes": 1}.get) for _ in range(2))
    for part, rows in ((found, ((2, "no"), (4, "yes"))), (other, ((1, "no"), (3, "perhaps")))):
        for row, answer in rows:
            part.look_at(answer, f"a.tsv:{row}")
    found.merge([other])
    assert found.rows == 4 and found.lines() == [
        "'no': 2 rows, first a.tsv:1",
        "'perhaps': 1 row, first a.tsv:3",
    ]


def test_a_long_list_is_cut_and_says_so():
    found = MissingAnswers({}.get)
    for row in range(50):
        found.look_at(f"answer {row}", f"a.tsv:{row + 1}")
    found.look_at("yes", "a.tsv:60")
    found.length_of = {"yes": 1}.get
    found.look_at("yes", "a.tsv:61")
    message = found.message("a.tsv", 9, "answers.json")
    assert (
        "51 of 52 rows" in message
        and "and 21 other answers" in message
        and message.count("first a.tsv") == 30
    )


@pytest.fixture
def rows(tmp_path):
    """Answers: red 3 x, blue 2 x, green 2 x, gray 1 x; one row has none."""
    counts = ["red", "green", "blue", "red", "blue", "grey", "green", "red"]
    texts = [f"0.3|!+no&&1.0|!+{answer}" for answer in counts] + [""]
    return write_rows(
        tmp_path / "train.tsv", [vqa_row(number, text) for number, text in enumerate(texts)]
    )


@pytest.mark.parametrize(
    "options, expected",
    [
        ([], ["red", "blue", "green", "grey"]),
        (["--most=2"], ["red", "blue"]),
        (["--min-count=2"], ["red", "blue", "green"]),
    ],
)
@pytest.mark.parametrize("name", ["answers.json", "answers.pkl"])
def test_build_keeps_the_most_frequent_answers_in_a_fixed_order(
    rows, options, expected, name, capsys
):
    out = rows.parent / name
    assert main(["answers", "build", str(rows), "--out", str(out), *options]) == 0
    assert list(read_label_file(out).items()) == [
        (answer, number) for number, answer in enumerate(expected)
    ]
    assert f"{len(expected)} of 4 answers" in capsys.readouterr().out
    if name.endswith("pkl"):
        assert pickle.loads(out.read_bytes()) == json.loads(json.dumps(read_label_file(out)))


def test_check_lists_every_answer_that_a_set_has_not(rows, capsys):
    labels = rows.parent / "some.json"
    labels.write_text('{"red": 0, "grey": 1}')
    assert main(["answers", "check", str(rows), "--ans2label-file", str(labels)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert (
        printed[:2] == [f"'green': 2 rows, first {rows}:2", f"'blue': 2 rows, first {rows}:3"]
        and "4 of 8 rows" in printed[2]
    )
    labels.write_text(json.dumps({answer: 0 for answer in ("red", "grey", "blue", "green")}))
    assert main(["answers", "check", str(rows), "--ans2label-file", str(labels)]) == 0


@pytest.mark.parametrize("options, words", [(["--min-count=9"], "4, none of 9 rows")])
def test_nothing_to_build_is_one_message(rows, options, words, capsys):
    assert (
        main(["answers", "build", str(rows), "--out", str(rows.parent / "out.json"), *options]) == 2
    )
    assert words in capsys.readouterr().err and not (rows.parent / "out.json").exists()


def test_a_set_has_at_least_one_answer(rows, capsys):
    out = rows.parent / "out.json"
    with pytest.raises(SystemExit):
        main(["answers", "build", str(rows), "--out", str(out), "--most=0"])
    assert "at least 1" in capsys.readouterr().err and not out.exists()


def test_a_label_file_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    path = tmp_path / "trainval_ans2label.pkl"
    path.write_bytes(pickle.dumps({"yes": Evil()}))
    with pytest.raises(UserError, match="trainval_ans2label.pkl: expected a label file"):
        read_label_file(path)
    assert not (tmp_path / "ran").exists()


def test_the_highest_confidence_is_learned_and_the_first_of_equals():
    assert learned_answer("0.6|!+yes&&1.0|!+red and white&&0.3|!+no") == "red and white"
    assert learned_answer("1.0|!+a&&1.0|!+b") == "a"


@pytest.mark.parametrize(
    "field", ["high|!+yes", "|!+yes", "1.0|!+", "yes&&", "-1|!+yes", "inf|!+yes", "0.5|!+0.6|!+yes"]
)
def test_answers_that_break_the_grammar_are_named(field):
    with pytest.raises(UserError, match="vqa.tsv:3: expects answers 'confidence"):
        parse_answers(field, "vqa.tsv:3")


@pytest.mark.parametrize("columns", [(0, 2), (0, 3), (1,)])
def test_texts_of_a_long_row_are_read_without_its_image(tmp_path, columns):
    rows = [("a1", "x" * 70000, "question one", "yes"), ("a2", "y", "question two", "no")]
    file = TsvFile(write_rows(tmp_path / "rows.tsv", rows), "0,1")
    for number, row in enumerate(rows):
        assert file.texts(number, columns) == [row[column] for column in columns]


@pytest.mark.parametrize(
    "name, written",
    [
        ("17", 17),
        ("007", 7),
        ("a7", "a7"),
        ("１２", "１２"),
        ("9" * 5000, "9" * 5000),
        ("1.0", "1.0"),
        ("-3", "-3"),
    ],
)
def test_a_question_id_is_a_number_in_the_result_file_if_it_is_a_plain_one(name, written):
    from ofa.task.prediction import Prediction
    from ofa.tasks.vqa_gen import result_row

    assert result_row(name, Prediction("yes")) == {"question_id": written, "answer": "yes"}
