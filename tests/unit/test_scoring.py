"""Rows without a reference are counted and not scored."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.io.values import finite
from ofa.metrics.document_frequency import count_document_frequencies
from ofa.task.prediction import Prediction
from ofa.task.results import write_json
from ofa.task.scoring import references_of, score_rows
from ofa.tasks import spec_of

# task -> columns of a row with a reference, the prediction that is right, the columns that make it
# a row without
ROWS = {
    "caption": ({"caption": "a dog runs"}, Prediction("a dog runs"), {"caption": " "}),
    "vqa_gen": ({"answers": "1.0|!+yes"}, Prediction("yes"), {"answers": ""}),
    "grounded_qa": ({"answers": "1.0|!+yes"}, Prediction("yes"), {"answers": ""}),
    "refcoco": ({"box": "1,2,30,40"}, Prediction("", box=(1.0, 2.0, 30.0, 40.0)), {"box": ""}),
    "snli_ve": ({"label": "entailment"}, Prediction("yes"), {"label": ""}),
    "image_classify": ({"label": "zebra"}, Prediction("zebra"), {"label": ""}),
    "gigaword": ({"target": "stocks fall"}, Prediction("stocks fall"), {"target": ""}),
    "ocr": ({"text": "open"}, Prediction("open"), {"text": " "}),
    "cola": ({"label": "1"}, Prediction("yes"), {"label": ""}),
    "mnli": ({"label": "1"}, Prediction("yes"), {"label": ""}),
}


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR takes ten seconds and more to start; its numbers have tests of their own."""
    monkeypatch.setattr("shutil.which", lambda name: None)


def where(row: int) -> str:
    return f"val.tsv:{row + 1}"


@pytest.mark.parametrize("task", ROWS)
def test_one_row_without_a_reference_leaves_the_scores_of_the_others_as_they_are(task, caplog):
    row, right, lacking = ROWS[task]
    spec, rows = spec_of(task), [row, lacking, row]
    references = references_of(spec, rows.__getitem__, 3, where)
    assert "not scored, without a reference: 1 of 3 rows, val.tsv:2" in caplog.text
    scores = score_rows(spec, [right] * 3, references)
    assert (
        scores.overall
        == spec.metrics.final_scores([right] * 2, [references[0], references[2]], None).overall
    )
    for values in scores.by_row.values():
        assert len(values) == 3 and math.isnan(values[1]) and not math.isnan(values[0])


@pytest.mark.parametrize(
    "task, row", [("refcoco", {"box": "1,2,nan,4"}), ("vqa_gen", {"answers": "nan|!+yes"})]
)
def test_a_reference_that_cannot_be_read_is_an_error_with_its_row(task, row):
    with pytest.raises(UserError, match="^val.tsv:2: expects"):
        references_of(spec_of(task), [ROWS[task][0], row].__getitem__, 2, where)


def test_a_row_that_cannot_be_read_is_named_once(tmp_path):
    (tmp_path / "val.tsv").write_text("0\ta dog\n1\n")
    rows = TsvFile(str(tmp_path / "val.tsv"), "0,1")
    with pytest.raises(UserError, match="has, found 1") as error:
        references_of(spec_of("caption"), lambda row: {"caption": rows[row][1]}, 2, rows.where)
    assert str(error.value).count("val.tsv:2") == 1


def test_a_file_without_any_reference_has_no_scores_and_no_warning(caplog):
    assert references_of(spec_of("caption"), lambda row: {"caption": ""}, 3, where) is None
    assert not caplog.text


def test_cider_of_a_single_image_says_why_it_is_zero(caplog):
    spec = spec_of("caption")
    assert spec.metrics.final_scores([Prediction("a dog")], [["a dog"]], None).overall["CIDEr"] == 0
    assert "single image" in caplog.text
    caplog.clear()
    assert (
        spec.metrics.final_scores(
            [Prediction("a dog"), Prediction("a cat")], [["a dog"], ["a cat"]], None
        ).overall["CIDEr"]
        > 0
    )
    assert "single image" not in caplog.text


def test_document_frequencies_score_a_single_image(caplog):
    spec = spec_of("caption")
    frequencies = count_document_frequencies([["a dog runs"], ["a cat"], ["a red car"]])
    arguments = spec, [Prediction("a dog runs")], [["a dog runs"]], ["CIDEr"]
    assert score_rows(*arguments, frequencies).overall["CIDEr-D"] > 1
    assert "CIDEr of a single image is 0 whatever is predicted: read CIDEr-D" in caplog.text
    assert score_rows(*arguments).overall["CIDEr-D"] == 0
    assert "--cider-df" in caplog.text


def test_document_frequencies_are_ignored_with_a_warning_where_nothing_needs_them(caplog):
    scores = score_rows(
        spec_of("snli_ve"),
        [Prediction("yes")],
        [{"yes": 1.0}],
        None,
        {"ref_len": 1, "document_frequency": {}},
    )
    assert (
        scores.overall == {"snli_score": 1.0}
        and "--cider-df: task 'snli_ve' is not scored by CIDEr-D" in caplog.text
    )


def test_validation_with_a_single_image_says_why_cider_is_zero(caplog):
    from ofa.metrics.caption_scores import CaptionScorer
    from ofa.tasks.caption import CaptionOptions

    CaptionScorer(CaptionOptions(eval_cider=True), lambda: [["a dog"], [""]])
    assert "single image" in caplog.text


def test_numbers_that_are_not_finite_are_null_in_json_files(tmp_path):
    write_json(tmp_path / "a.json", {"score": math.nan, "rows": [(1.5, math.inf)], "text": "nan"})
    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert content == {"score": None, "rows": [[1.5, None]], "text": "nan"}
    assert finite(3) == 3 and finite(True) is True


class PairsStub:
    """Rows of pretraining that say nothing but captions; the second has none."""

    rows = [
        {"image": str(row), "caption": "" if row == 1 else "a dog", "answers": ""}
        for row in range(3)
    ]

    def __init__(self):
        self.pairs, self.files, self.starts = self, {"pairs": self}, np.array([0, 3])
        self.schema = self

    def __getitem__(self, index):
        return self.rows[index]

    def where(self, index):
        return f"pairs.tsv:{index + 1}"

    def type_of(self, row, where):
        if not row["caption"]:
            raise UserError(f"{where}: expects a caption")
        return SimpleNamespace(tasks=("caption",))


def test_rows_of_pretraining_that_cannot_be_asked_about_are_counted(caplog):
    from ofa.data.sample import TASK
    from ofa.inference.pretraining_eval import PretrainingEvalSet
    from ofa.task.pretraining_tasks import PAIR_TASKS, TASKS

    class Dataset(PairsStub):
        def __getitem__(self, index):
            return [[{TASK: "caption", "id": index}]] if Dataset.asks else self.rows[index]

    assert "caption" in PAIR_TASKS
    asked = PretrainingEvalSet.__new__(PretrainingEvalSet)
    asked.rows, asked.repeated, asked.samples = 5, False, {task: [] for task in TASKS}
    asked.task = type("Task", (), {"weights": {task: 1.0 for task in TASKS}})
    asked.dataset = Dataset()
    asked.dataset.files = {"pairs": (file := PairsStub())}
    asked.dataset.pairs, Dataset.asks = file, True
    asked.collect()
    assert [row["image"] for _, row in asked.samples["caption"]] == ["0", "2"]
    assert (
        "not scored: 1 row that nothing can be asked about: pairs.tsv:2: expects a caption"
        in caplog.text
    )
    asked.samples = {task: [] for task in TASKS}
    PairsStub.rows = PairsStub.rows[1:2] * 3
    with pytest.raises(UserError, match="pairs.tsv:1"):
        asked.collect()
