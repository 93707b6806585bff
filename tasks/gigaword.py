"""Summaries: `` what is the summary of article " stocks fell sharply on monday . "?`` -> ``stocks
fall``.

Columns ``source, target`` (``--selected-cols 0,1``). With ``--noise-ratio`` some tokens that the
decoder reads while it learns are replaced by others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.metrics.rouge import make_scorer, metrics, summary_form, summary_scores
from ofa.task.prediction import BatchRow, Hypothesis, Prediction, Shown
from ofa.task.task_spec import Example, RowContext, TaskOptions, TaskSpec
from ofa.task.text import clean_phrase

PROMPTS = {"en": ' what is the summary of article " {} "?', "zh": "{} 请用一个句子简单总结上文："}
SCREENED_ON = (
    100  # rows on which all constant summaries are tried; the best few are tried on all rows
)


@dataclass
class GigawordOptions(TaskOptions):
    """Options of summaries."""

    eval_rouge: bool = option(False, "validate with ROUGE-1, ROUGE-2 and ROUGE-L (F1, 0 to 1)")
    eval_args: Optional[str] = option(
        "{}", 'generation options for validation, e.g. \'{"beam":6,"lenpen":0.7,"max_len_b":32}\''
    )
    eval_print_samples: bool = option(False, "log one summary per validation batch")
    noise_ratio: float = option(
        0.0, "part of the tokens that the decoder reads in training, replaced by others by chance"
    )

    def __post_init__(self):
        if not 0 <= self.noise_ratio < 1:
            raise UserError(f"--noise-ratio: expected from 0 to below 1, found {self.noise_ratio}")


def gigaword_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row; ``the <unk> budget -- 1,200 million``, ``<unk> budget passed`` -> ``the unk budget
    1,200 million``, ``unk budget passed``.

    As upstream the source is cut to so many words and then, with the prompt around it, to so
    many tokens; and the target has no leading space. Rows of evaluation splits may have no target.
    """
    options = context.options
    source = summary_text(row["source"], options.max_src_length)
    target = summary_text(row["target"], options.max_tgt_length)
    if not source or (context.training and not target):
        missing = "summary" if source else "text to summarize"
        raise UserError(
            f"{context.where}: task 'gigaword' expects a {missing}, found an empty column; fill it"
            " in or remove the row"
        )
    return Example(
        source=PROMPTS[context.language].format(source),
        target=target,
        max_source_tokens=options.max_src_length,
        noise_ratio=options.noise_ratio if context.training else 0.0,
        extra={"target_str": row["target"].lower()},
    )


def summary_text(text: str, max_words: int) -> str:
    return clean_phrase(text, max_words).replace("<unk>", "unk")


def prediction(hypothesis: Hypothesis, row: BatchRow, options: GigawordOptions) -> Prediction:
    return Prediction(hypothesis.text.strip(), hypothesis.score, reference=row.target_str or "")


def references(row: BatchRow) -> list[str]:
    return [row.target.strip() if row.target_str is None else row.target_str]


def row_references(row: Mapping[str, str]) -> list[str]:
    return [row["target"].lower()] if row["target"].strip() else []


def result_row(row_id: Any, summary: Prediction) -> dict[str, str]:
    """One entry of the result file, the reference beside the summary."""
    return {"hyp": summary_form(summary.text), "ref": summary.reference}


def shown(row: Mapping[str, str], summary: Prediction, accepted: Optional[Sequence[str]]) -> Shown:
    return Shown(row["source"], summary.text, accepted or ())


def best_constant(
    lines: Sequence[str], accepted: Sequence[Sequence[str]]
) -> tuple[str, dict[str, float]]:
    """The line that has the best ROUGE-L as the summary of every row, and its scores; see
    ``ofa.task.constant_baseline``."""
    found: dict[str, dict[str, float]] = {}
    for rows in (accepted[:SCREENED_ON], accepted):
        found = {
            line: summary_scores([Prediction(line)] * len(rows), rows).overall for line in lines
        }
        lines = sorted(lines, key=lambda line: -found[line]["rougeL_f1"])[:10]
    return lines[0], found[lines[0]]


SPEC = TaskSpec(
    name="gigaword",
    columns=("source", "target"),
    default_cols="0,1",
    options=GigawordOptions,
    example=gigaword_example,
    prediction=prediction,
    references=references,
    result=result_row,
    metrics=metrics(),
    make_scorer=make_scorer,
    row_references=row_references,
    final_scores=summary_scores,
    best_constant=best_constant,
    shown=shown,
)
