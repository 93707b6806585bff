"""The doctor knows the columns of every task as the task itself declares them."""

import pytest

from ofa.doctor.layouts import LAYOUTS
from ofa.tasks import declared_specs
from ofa.tasks.glue import TABLE

SPECS = [spec for spec in declared_specs() if spec.name in LAYOUTS]


@pytest.mark.parametrize("spec", SPECS, ids=[spec.name for spec in SPECS])
def test_columns_are_those_of_the_task(spec):
    layout = LAYOUTS[spec.name]
    assert layout.selected == spec.default_cols
    every = (*spec.columns, *spec.optional_columns)
    assert tuple(layout.columns) == every[: len(layout.columns)] and len(layout.columns) >= len(
        spec.columns
    )


def test_tasks_with_files_of_their_own_are_known():
    assert {"cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "gigaword"} <= {
        spec.name for spec in SPECS
    }
    assert {"caption", "vqa_gen", "grounded_qa", "refcoco", "snli_ve", "image_classify"} <= {
        spec.name for spec in SPECS
    }


@pytest.mark.parametrize("glue", TABLE, ids=lambda glue: glue.name)
def test_labels_are_those_of_the_task(glue):
    assert set(LAYOUTS[glue.name].labels) == set(glue.answers)
