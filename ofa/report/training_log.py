"""What a training wrote beside its checkpoints, for pages: curves of ``train.log``, and the time
of each stage."""

import re
from pathlib import Path

from ofa.errors import UserError
from ofa.io.numbers import read_decimal
from ofa.io.text_files import read_lines
from ofa.report.page import Curve, Table
from ofa.task.pretraining_tasks import TASKS
from ofa.task.task_spec import TaskSpec

NUMBER = r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"


def training_curves(log: str, spec: TaskSpec | None = None) -> list[Curve]:
    """Loss, the figures of whatever tasks were validated, and what each task of a pretraining
    learned, from a ``train.log`` of ``--log-format simple``.

    Args: spec: whose figures a name means that several tasks have.
    """
    from ofa.tasks import declared_specs

    titles = {
        figure.name: f"{figure.title or f'validation {figure.name}'} over updates"
        for one in (*declared_specs(), *filter(None, [spec]))
        for figure in one.metrics.figures
    }
    learned = {task: f"{task.replace('_', ' ')}: right tokens (%)" for task in TASKS}
    loss = series(log, "train_inner", rf"[ ,](nll_loss)={NUMBER}").get("nll_loss", [])
    validated = series(log, "| valid", rf"\| ({'|'.join(map(re.escape, titles))}) {NUMBER}")
    trained = series(log, "train_inner", rf"[ ,]({'|'.join(learned)})_acc={NUMBER}")
    per_update = "loss of an update: pairs, and auxiliary rows (nats)"
    return [
        Curve(per_update if trained else "loss per token (nats) over updates", loss),
        *(Curve(titles[name], values) for name, values in validated.items()),
        *(Curve(title, trained[task]) for task, title in learned.items() if task in trained),
    ]


def series(log: str, marker: str, pattern: str) -> dict[str, list[tuple[float, float]]]:
    """Figures by name, (update, value) each. A resumed run writes on into the same log; of updates
    that were done twice the later counts.

    Args: marker: what the lines have. pattern: of name and number.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for line in filter(lambda line: marker in line, log.splitlines()):
        update = re.search(rf"num_updates[\s=]+{NUMBER}", line)
        if update is None:
            continue
        for name, value in re.findall(pattern, line):
            points, step = found.setdefault(name, []), float(update[1])
            while points and points[-1][0] >= step:
                points.pop()
            points.append((step, float(value)))
    return found


def stage_times(path: str | Path, **more: float) -> Table:
    """A file of lines ``stage TAB seconds`` as a table, with their sum. Args: more: seconds of
    further stages."""
    times = []
    lines = [line for line in read_lines(path) if "\t" in line]
    for number, line in enumerate(lines, 1):
        stage, seconds = line.split("\t", 1)
        try:
            times.append((stage, seconds, read_decimal(seconds)))
        except ValueError:
            raise UserError(
                f"{path}:{number}: expects 'stage TAB seconds', found {seconds[:60]!r}; correct the"
                " line"
            ) from None
    times += [(stage, f"{seconds:.0f}", seconds) for stage, seconds in more.items()]
    together = ("together", f"{sum(seconds for *_, seconds in times):.0f}")
    rows = [*((stage, seconds) for stage, seconds, _ in times), together]
    return Table("time per stage", ["stage", "seconds"], rows)
