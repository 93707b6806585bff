"""Before a training starts: can every row be learned with the answers that the run allows?"""

import logging
from collections.abc import Sequence

from torch import distributed

from ofa.data.fairseq_dataset import OFADataset
from ofa.errors import UserError
from ofa.task.answers import AnswerSet, MissingAnswers
from ofa.trainer.fairseq_distributed import of_all_ranks

logger = logging.getLogger(__name__)

LOOKED_AT = 1000  # rows of an evaluation file that are looked at


def check_training(datasets: Sequence[OFADataset], answers: AnswerSet, source: str) -> None:
    """Every row of all training files; several processes share the work.

    An answer outside the set would have an infinite loss.
    Args: source: where the answers come from, for the message.
    Raises: UserError with every kind of answer that is missing and where it first occurs.
    """
    rank, world = (
        (distributed.get_rank(), distributed.get_world_size())
        if distributed.is_initialized()
        else (0, 1)
    )
    found = MissingAnswers(answers.length_of)
    found.merge(
        look(dataset, answers, range(rank, len(dataset), world), learned=True)
        for dataset in datasets
    )
    found, *others = of_all_ranks(found)
    found.merge(others)
    paths = " ".join(dataset.file.path for dataset in datasets)
    if found:
        for line in found.lines():
            logger.error("missing answer %s", line)
        may_be_free = hasattr(datasets[0].builder.options, "unconstrained_training")
        raise UserError(found.message(paths, len(answers), source, may_be_free))
    logger.info(
        "%s: the answers of all %d rows are among the %d of %s",
        paths,
        found.rows,
        len(answers),
        source,
    )


def check_evaluation(dataset: OFADataset, answers: AnswerSet, source: str) -> None:
    """The first rows of an evaluation file of a task whose rows all have answers of the set.

    Raises: UserError if one has not: then it is the file of another dataset.
    """
    found = look(dataset, answers, range(min(LOOKED_AT, len(dataset))), learned=False)
    if found:
        raise UserError(found.message(dataset.file.path, len(answers), source))


def look(dataset: OFADataset, answers: AnswerSet, rows: range, learned: bool) -> MissingAnswers:
    """What is missing in some rows; rows without an answer are skipped.

    Args: learned: an answer that is longer than targets may be is missing as well.
    """
    found = MissingAnswers(answers.length_of)
    for row in rows:
        example = dataset.example(row)
        answer = "".join(example.target).strip()
        if answer:
            found.look_at(
                answer, dataset.file.where(row), example.max_target_tokens if learned else None
            )
    return found
