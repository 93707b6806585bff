"""The table of scores that ``ofa evaluate`` and ``ofa report`` print."""

from types import SimpleNamespace

from ofa.cli.evaluate import print_table
from ofa.task.scoring import Evaluation, Scores, TaskMetrics


def test_columns_stay_aligned_below_a_long_name_of_a_score(capsys):
    spec = SimpleNamespace(metrics=TaskMetrics())
    outcome = Evaluation(
        spec=spec,
        predictions=[],
        references=None,
        row=lambda index: {},
        subset="val",
        model="a.pt",
        source="a.tsv",
        scores=Scores({"acc": 0.25, "Inception score std": 0.5}),
    )
    print_table(outcome, [])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("acc ") and lines[2].startswith("Inception score std ")
    assert {len(line) for line in lines} == {len("Inception score std") + len("    0.2500")}
