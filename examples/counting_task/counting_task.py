"""Counting: `` how many dogs are there?`` -> `` 3``, from rows ``id, image, thing, count``."""

from ofa.metrics.accuracy import Accuracy
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.task_spec import Example, TaskSpec


def counting_example(row, context):
    return Example(
        id=row["id"],
        source=f" how many {row['thing'].strip()} are there?",
        target=f" {row['count'].strip()}",
        image=context.open_image(row["image"]),
    )


SPEC = TaskSpec(
    name="counting",
    aliases=("count_things",),
    columns=(ID, IMAGE, Column("thing", example="dogs"), Column("count", target=True)),
    example=counting_example,
    metrics=Accuracy("acc"),
)
