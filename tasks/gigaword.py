"""Summaries: `` what is the summary of article " stocks fell sharply . "?`` -> ``stocks fall``.

Columns ``source, target`` (``--selected-cols 0,1``). With ``--noise-ratio`` some tokens that the
decoder reads while it learns are replaced by others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.metrics.rouge import SummaryMetrics, summary_form
from ofa.task.columns import Column
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import Example, GenerativeOptions, RowContext, TaskSpec, Usage
from ofa.task.text import clean_phrase

SOURCE = Column("source", max_words=512, example="stocks fell sharply on monday .")
TARGET = Column("target", target=True, max_words=64, clean=str.lower)
PROMPTS = {"en": ' what is the summary of article " {} "?', "zh": "{} 请用一个句子简单总结上文："}


@dataclass
class GigawordOptions(GenerativeOptions):
    eval_rouge: bool = option(False, "validate with ROUGE-1, ROUGE-2 and ROUGE-L (F1, 0 to 1)")
    noise_ratio: float = option(
        0.0, "part of the tokens that the decoder reads, replaced by chance"
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise_ratio < 1:
            raise UserError(f"--noise-ratio: expected from 0 to below 1, found {self.noise_ratio}")


def gigaword_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row; ``the <unk> budget -- 1,200 million`` -> ``the unk budget 1,200 million``.

    As upstream the source is cut to a number of words and then, with the prompt around it, to a
    number of tokens; the target has no leading space, and in evaluation splits perhaps no words.
    """
    options = context.options
    source = summary_text(row["source"], options.max_src_length)
    target = summary_text(row["target"], options.max_tgt_length)
    if not source or (context.training and not target):
        raise context.error("a summary" if source else "a text to summarize", "an empty column")
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


def result_row(row_id: Any, summary: Prediction) -> dict[str, str]:
    """One entry of the result file, the reference beside the summary."""
    return {"hyp": summary_form(summary.text), "ref": summary.reference}


SPEC = TaskSpec(
    name="gigaword",
    aliases=("summarize",),
    columns=(SOURCE, TARGET),
    usage=Usage(
        title="Summary",
        noun="summaries",
        about="One sentence that summarizes a text.",
        button="Summarize",
    ),
    options=GigawordOptions,
    example=gigaword_example,
    prediction=prediction,
    result=result_row,
    metrics=SummaryMetrics(),
)
