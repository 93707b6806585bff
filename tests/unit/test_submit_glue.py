"""``ofa submit glue``: the zip of the GLUE site, or one message that says what is wrong."""

import zipfile

import pytest

from ofa.cli.main import main
from ofa.task.results import write_json

WORDS = {
    "cola": ("yes", "1"),
    "mnli-m": ("maybe", "neutral"),
    "mnli-mm": ("no", "contradiction"),
    "mrpc": ("no", "0"),
    "qnli": ("yes", "entailment"),
    "qqp": ("yes", "1"),
    "rte": ("no", "not_entailment"),
    "sst2": ("positive", "1"),
}
FILES = {
    "cola": "CoLA.tsv",
    "mnli-m": "MNLI-m.tsv",
    "mnli-mm": "MNLI-mm.tsv",
    "mrpc": "MRPC.tsv",
    "qnli": "QNLI.tsv",
    "qqp": "QQP.tsv",
    "rte": "RTE.tsv",
    "sst2": "SST-2.tsv",
}


def results(folder, name: str, *answers: str, first: int = 0) -> list[str]:
    write_json(
        folder / f"{name}.json",
        [{"uniq_id": first + number, "answer": answer} for number, answer in enumerate(answers)],
    )
    return [f"--{name}", str(folder / f"{name}.json")]


def test_every_task_has_a_file_with_the_words_of_the_site(tmp_path, caplog, capsys):
    given = [
        word
        for name, (answer, _) in WORDS.items()
        for word in results(tmp_path, name, answer, answer)
    ]
    other = tmp_path / "STS-B.tsv"
    other.write_text("index\tprediction\n0\t2.5")
    assert (
        main(["submit", "glue", *given, "--also", str(other), "--out", str(tmp_path / "glue.zip")])
        == 0
    )
    with zipfile.ZipFile(tmp_path / "glue.zip") as archive:
        assert set(archive.namelist()) == {*FILES.values(), "STS-B.tsv"}
        for name, (_, word) in WORDS.items():
            assert (
                archive.read(FILES[name]).decode() == f"index\tprediction\n0\t{word}\n1\t{word}\n"
            )
    assert "the test set has 1063 rows" in caplog.text and "not there: WNLI.tsv" in caplog.text
    assert "CoLA.tsv: 2 predictions" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, answers, first, words",
    [
        ("cola", ["positive"], 0, ("entry 1", "CoLA.tsv", "'positive'")),
        ("rte", ["maybe"], 0, ("RTE.tsv", "yes")),
        ("rte", ["yes"], 3, ("entry 1", "row 0", "found row 3")),
    ],
)
def test_results_of_another_task_or_part_are_refused(tmp_path, capsys, name, answers, first, words):
    assert (
        main(
            [
                "submit",
                "glue",
                *results(tmp_path, name, *answers, first=first),
                "--out",
                str(tmp_path / "glue.zip"),
            ]
        )
        == 2
    )
    message = capsys.readouterr().err
    assert all(word in message for word in words) and not (tmp_path / "glue.zip").exists()


def test_without_results_or_with_foreign_files_nothing_is_written(tmp_path, capsys):
    out = ["--out", str(tmp_path / "glue.zip")]
    assert main(["submit", "glue", *out]) == 2 and "--mnli-mm" in capsys.readouterr().err
    (tmp_path / "AX.tsv").write_text("id,answer\n")
    assert (
        main(
            [
                "submit",
                "glue",
                *results(tmp_path, "cola", "yes"),
                "--also",
                str(tmp_path / "AX.tsv"),
                *out,
            ]
        )
        == 2
    )
    assert "AX.tsv:1" in capsys.readouterr().err
