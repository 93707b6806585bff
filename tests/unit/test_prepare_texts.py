"""``ofa prepare`` for language tasks: upstream's columns, labels by name, one message per
fault."""

import json

import pytest

from ofa.cli.main import main
from ofa.prepare.glue import TASKS

ORIGINAL = {  # header of training files, a row of it, and what becomes of it
    "cola": ("", 'gj04\t1\t\tThey "won".', ["0", 'They "won".', "1"]),
    "mnli": (
        "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\tfiction\tIt rains.\tIt is wet.\tneutral\tentailment",
        ["It rains.", "It is wet.", "1"],
    ),
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "1\t70\t71\tA b.\tB a.",
        ["A b.", "B a.", "1"],
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel",
        "0\tWho?\tHe.\tnot_entailment",
        ["0", "Who?", "He.", "not_entailment"],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "9\t1\t2\tHow?\tWhy?\t0",
        ["0", "", "", "How?", "Why?", "0"],
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel",
        "0\tA man.\tA person.\tentailment",
        ["0", "A man.", "A person.", "entailment"],
    ),
    "sst2": ("sentence\tlabel", "good fun\t1", ["good fun", "1"]),
}


def write_original(folder, name: str, *more: str):
    """All splits of a task with one training row, those of ``more`` behind it, and two test
    rows."""
    header, row, _ = ORIGINAL[name]
    place = folder / TASKS[name].folder
    place.mkdir(parents=True)
    texts = row.split("\t")
    for split in TASKS[name].splits:
        if split.startswith("test"):
            words = [column for column in TASKS[name].texts]
            lines = [
                "\t".join(["index", *words]),
                *("\t".join([str(number), *(f"t{number}" for _ in words)]) for number in range(2)),
            ]
        else:
            lines = [
                *([header] if header else []),
                "\t".join(texts),
                *(more if split == "train" else ()),
            ]
        (place / f"{split}.tsv").write_text(
            "".join(f"{line}\n" for line in lines), encoding="utf-8"
        )
    return place


def rows(path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def glue(folder, *options: str) -> int:
    return main(
        ["prepare", "glue", "--data", str(folder / "glue"), "--out", str(folder / "out"), *options]
    )


def test_every_original_task_gets_upstreams_columns(tmp_path):
    for name in ORIGINAL:
        write_original(tmp_path / "glue", name)
    assert glue(tmp_path) == 0
    for name, (_, _, expected) in ORIGINAL.items():
        assert rows(tmp_path / f"out/{name}_train.tsv") == [expected], name
        for split in TASKS[name].splits:
            if split.startswith("test"):
                found = rows(tmp_path / f"out/{name}_{split}.tsv")
                assert len(found) == 2 and all(
                    row[-1] == "" and len(row) == len(expected) for row in found
                )
    assert (tmp_path / "out/mnli_dev_mismatched.tsv").is_file()


def test_a_task_can_be_added_later_and_a_finished_one_is_kept(tmp_path, caplog):
    place = write_original(tmp_path / "glue", "cola")
    assert glue(tmp_path) == 0
    write_original(tmp_path / "glue", "rte")
    assert glue(tmp_path, "--tasks", "rte") == 0
    assert (tmp_path / "out/cola_train.tsv").is_file() and json.loads(
        (tmp_path / "out/manifest_rte.json").read_text()
    )["finished"]
    with caplog.at_level("INFO"):
        assert (
            main(
                [
                    "prepare",
                    "glue",
                    "--data",
                    str(place),
                    "--tasks",
                    "cola",
                    "--out",
                    str(tmp_path / "out"),
                ]
            )
            == 0
        )
    assert "already complete" in caplog.text


@pytest.mark.parametrize(
    "name, line, words",
    [
        (
            "rte",
            "1\tA man.\tA person.\tmaybe",
            ("RTE/train.tsv:3", "entailment, not_entailment", "'maybe'"),
        ),
        ("rte", "1\tA man.\t \tentailment", ("RTE/train.tsv:3", "empty")),
        ("qqp", "1\t2\t3\tHow?", ("QQP/train.tsv:3", "6 columns", "found 4", "'question2'")),
        (
            "mnli",
            "1\tfiction\tA.\tB.\tneutral\t1",
            ("MNLI/train.tsv:3", "neutral, entailment, contradiction", "'1'"),
        ),
        ("cola", "a\t\t\tWords.", ("CoLA/train.tsv:2", "found ''")),
    ],
)
def test_a_wrong_row_is_named_or_left_out(tmp_path, capsys, name, line, words):
    write_original(tmp_path / "glue", name, line)
    assert glue(tmp_path) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not list(tmp_path.glob("out/*.tsv"))
    assert (
        glue(tmp_path, "--skip-broken") == 0 and len(rows(tmp_path / f"out/{name}_train.tsv")) == 1
    )


def test_undecided_pairs_are_left_out(tmp_path):
    write_original(tmp_path / "glue", "mnli", "1\tfiction\tA.\tB.\tneutral\t-")
    assert glue(tmp_path) == 0 and len(rows(tmp_path / "out/mnli_train.tsv")) == 1


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text.replace("sentence2", "hypothesis"), ("test.tsv:1", "'sentence2'")),
        (lambda text: text.replace("\n1\t", "\n7\t"), ("test.tsv:3", "numbered 1", "'7'")),
        (lambda text: text.replace("\tt1", ""), ("test.tsv:3", "cannot be skipped")),
    ],
)
def test_test_rows_are_all_there_in_their_order(tmp_path, capsys, change, words):
    path = write_original(tmp_path / "glue", "rte") / "test.tsv"
    path.write_text(change(path.read_text()))
    assert glue(tmp_path, "--skip-broken") == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_a_folder_without_a_task_names_what_is_expected(tmp_path, capsys):
    (tmp_path / "glue/WNLI").mkdir(parents=True)
    assert glue(tmp_path, "--tasks", "sst2") == 2
    assert "SST-2 or sst2" in capsys.readouterr().err
    assert glue(tmp_path) == 2 and "found WNLI" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------
# datasets on disk


def save(folder, splits: dict[str, dict], names: list[str] | None, parquet: bool = False):
    """A folder as ``load_dataset(...).save_to_disk`` leaves it, or of parquet files."""
    from datasets import ClassLabel, Dataset, DatasetDict

    saved = DatasetDict()
    for split, columns in splits.items():
        saved[split] = Dataset.from_dict(columns)
        if names and "label" in columns:
            saved[split] = saved[split].cast_column("label", ClassLabel(names=names))
    for split in saved if parquet else ():
        saved[split].to_parquet(folder / f"{split}-00000-of-00001.parquet")
    if not parquet:
        saved.save_to_disk(str(folder))


MNLI = {"premise": ["A b.", "C.", "D."], "hypothesis": ["E.", "F.", "G."], "label": [0, 1, 2]}


@pytest.mark.parametrize("parquet", [False, True])
def test_saved_labels_are_converted_by_name_and_test_rows_have_none(tmp_path, parquet):
    def pairs(*labels: int) -> dict:
        return {
            "sentence": ["He.", "She."],
            "question": ["Who?", "Why?"],
            "label": list(labels),
            "idx": [0, 1],
        }

    tests = {"premise": ["A", ""], "hypothesis": ["B", "C"], "label": [-1, -1]}
    order = ["entailment", "neutral", "contradiction"]
    save(
        tmp_path / "glue/mnli",
        {"train": MNLI, "validation_matched": MNLI, "test_matched": tests},
        order,
        parquet,
    )
    save(
        tmp_path / "glue/qnli",
        {"train": pairs(0, 1), "validation": pairs(1, 1), "test": pairs(-1, -1)},
        ["entailment", "not_entailment"],
        parquet,
    )
    assert glue(tmp_path) == 0
    assert [row[2] for row in rows(tmp_path / "out/mnli_train.tsv")] == ["1", "0", "2"]
    assert rows(tmp_path / "out/mnli_test_matched.tsv") == [["A", "B", ""], ["", "C", ""]]
    assert rows(tmp_path / "out/qnli_train.tsv")[0] == ["0", "Who?", "He.", "entailment"]
    assert [row[3] for row in rows(tmp_path / "out/qnli_test.tsv")] == ["", ""]


def test_saved_texts_that_are_null_are_named_or_left_out(tmp_path, capsys):
    broken = {**MNLI, "premise": ["A b.", None, "D."]}
    save(
        tmp_path / "glue/mnli",
        {"train": broken, "validation_matched": MNLI},
        ["entailment", "neutral", "contradiction"],
    )
    assert glue(tmp_path) == 2
    assert "mnli/train: row 1: expected a text as 'premise', found null" in capsys.readouterr().err
    assert glue(tmp_path, "--skip-broken") == 0 and len(rows(tmp_path / "out/mnli_train.tsv")) == 2
    save(
        tmp_path / "sums",
        {"train": {"document": ["A long text.", "B", "C"], "summary": ["a", None, "c"]}},
        None,
    )
    command = [
        "prepare",
        "gigaword",
        "--data",
        str(tmp_path / "sums"),
        "--out",
        str(tmp_path / "short"),
    ]
    assert main(command) == 2
    assert "sums/train: row 1: expected a summary, found null" in capsys.readouterr().err
    assert (
        main([*command, "--skip-broken"]) == 0
        and len(rows(tmp_path / "short/gigaword_train.tsv")) == 2
    )


def test_another_numbering_gives_the_same_rows_and_numbers_without_names_are_refused(
    tmp_path, capsys
):
    turned = {**MNLI, "label": [2, 0, 1]}
    save(
        tmp_path / "glue/mnli",
        {"train": turned, "validation_matched": turned},
        ["neutral", "contradiction", "entailment"],
    )
    assert glue(tmp_path) == 0 and [row[2] for row in rows(tmp_path / "out/mnli_train.tsv")] == [
        "1",
        "0",
        "2",
    ]
    save(
        tmp_path / "words/mnli",
        {"train": {**MNLI, "label": ["neutral", "entailment", "no"]}, "validation_matched": MNLI},
        None,
    )
    assert (
        main(
            ["prepare", "glue", "--data", str(tmp_path / "words"), "--out", str(tmp_path / "other")]
        )
        == 2
    )
    message = capsys.readouterr().err
    assert "plain numbers" in message and "mnli/validation_matched" in message


def test_a_saved_table_that_is_cut_is_one_message(tmp_path, capsys):
    save(tmp_path / "glue/mnli", {"train": MNLI, "validation_matched": MNLI}, None)
    [table] = (tmp_path / "glue/mnli/train").glob("*.arrow")
    table.write_bytes(table.read_bytes()[:200])
    assert glue(tmp_path) == 2
    assert f"{table}: expected a table, found" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------
# summaries


def lines(path, *texts: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return str(path)


def test_summaries_come_from_known_names_pairs_of_files_or_a_saved_folder(tmp_path):
    (
        lines(tmp_path / "giga/train.article.txt", "stocks  fell\there", "it rains"),
        lines(tmp_path / "giga/train.title.txt", "stocks fall", "rain"),
    )
    pair = lines(tmp_path / "a", "one"), lines(tmp_path / "b", "1")
    assert (
        main(
            [
                "prepare",
                "gigaword",
                "--data",
                str(tmp_path / "giga"),
                "--test",
                *pair,
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert rows(tmp_path / "out/gigaword_train.tsv") == [
        ["stocks fell here", "stocks fall"],
        ["it rains", "rain"],
    ]
    assert rows(tmp_path / "out/gigaword_test.tsv") == [["one", "1"]]
    save(tmp_path / "saved", {"validation": {"document": ["d"], "summary": ["s"]}}, None)
    assert (
        main(
            [
                "prepare",
                "gigaword",
                "--data",
                str(tmp_path / "saved"),
                "--out",
                str(tmp_path / "out2"),
            ]
        )
        == 0
    )
    assert rows(tmp_path / "out2/gigaword_dev.tsv") == [["d", "s"]]


@pytest.mark.parametrize(
    "texts, summaries, words",
    [
        (["a", "b"], ["x"], ("found 1", "belong together")),
        (["a"], ["x", "y"], ("found 1", "belong together")),
        (["a", ""], ["x", "y"], ("a:2", "expected a text")),
        (["a", "b"], ["x", ""], ("a:2", "expected a summary")),
    ],
)
def test_wrong_pairs_are_named(tmp_path, capsys, texts, summaries, words):
    pair = lines(tmp_path / "a", *texts), lines(tmp_path / "b", *summaries)
    assert main(["prepare", "gigaword", "--train", *pair, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_nothing_to_read_is_said(tmp_path, capsys):
    assert (
        main(["prepare", "gigaword", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    )
    assert "train.article.txt" in capsys.readouterr().err
    assert (
        main(["prepare", "gigaword", "--out", str(tmp_path / "out")]) == 2
        and "--train" in capsys.readouterr().err
    )


# --------------------------------------------------------------------------------------------- the
# synthetic sentences


def test_no_other_row_of_synthetic_sentences_occurs_in_training_and_labels_are_balanced(tmp_path):
    assert (
        main(
            [
                "prepare",
                "synthetic-sentences",
                "--train",
                "400",
                "--dev",
                "20",
                "--test",
                "60",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    for name in (*TASKS, "gigaword"):
        leading = TASKS[name].leading if name in TASKS else 0
        seen = {tuple(row[leading:-1]) for row in rows(tmp_path / f"{name}_train.tsv")}
        held_out = [
            row for split in ("dev", "test") for row in rows(tmp_path / f"{name}_{split}.tsv")
        ]
        assert not [row for row in held_out if tuple(row[leading:-1]) in seen], name
        if name in TASKS:
            labels = [row[-1] for row in held_out]
            assert set(labels) <= set(TASKS[name].labels.values()) and max(
                map(labels.count, labels)
            ) < 0.75 * len(labels), name


def test_the_doctor_finds_no_fault_in_prepared_files(tmp_path, capsys):
    assert (
        main(
            [
                "prepare",
                "synthetic-sentences",
                "--train",
                "30",
                "--dev",
                "5",
                "--test",
                "5",
                "--out",
                str(tmp_path / "world"),
            ]
        )
        == 0
    )
    write_original(tmp_path / "glue", "qnli")
    assert glue(tmp_path) == 0
    files = [str(path) for path in (tmp_path / "world").glob("*_train.tsv")]
    assert len(files) == 8 and main(["doctor", *files]) == 0
    assert main(["doctor", "--evaluation", str(tmp_path / "out/qnli_test.tsv")]) == 0
    bad = tmp_path / "cola_bad.tsv"
    bad.write_text("0\tA sentence.\tyes\n1\t\t1\n")
    assert main(["doctor", str(bad)]) == 1
    found = capsys.readouterr().out
    assert "cola_bad.tsv:1" in found and "'yes'" in found and "cola_bad.tsv:2" in found
