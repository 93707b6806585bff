"""Scores of captions as the COCO caption server computes them, per picture and over all."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ofa import metrics
from ofa.spec import Scores
from ofa.text import remove_punctuation

logger = logging.getLogger(__name__)

CANDIDATES = 200  # captions tried as the constant answer
SCREENED_ON = 100  # pictures on which all candidates are tried; the best few are tried on all pictures


def caption_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """CIDEr, BLEU-1..4, ROUGE-L and METEOR after PTB tokenisation, and the CIDEr-D of validation.

    Args: one prediction and its references per picture.
    Returns: overall scores, and CIDEr, BLEU-4 and ROUGE-L of each picture. METEOR is left out where Java is missing.
    """
    scores = Scores()
    tokenised = _tokenise(predictions, references)
    for name, (overall, each) in _scores_of(tokenised).items():
        scores.overall[name] = float(overall)
        scores.by_row[name] = [float(value) for value in each]
    scores.overall["CIDEr-D"] = _validation_cider(predictions, references)
    scores.by_row = {name: scores.by_row[name] for name in ("CIDEr", "BLEU-4", "ROUGE-L")}
    return scores


@dataclass
class _Tokenised:
    found: list[dict] = field(default_factory=list)
    references: dict[int, list[str]] = field(default_factory=dict)


def _tokenise(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> _Tokenised:
    """All texts through the tokeniser at once: it may be a program with a slow start."""
    flat = [" ".join(text.split()) for texts in (predictions, *references) for text in texts]
    tokens = iter(metrics.ptb_tokenize(flat))
    tokenised = _Tokenised([{"image_id": row, "caption": [next(tokens)]} for row in range(len(predictions))])
    tokenised.references = {row: [next(tokens) for _ in texts] for row, texts in enumerate(references)}
    return tokenised


def _scores_of(tokenised: _Tokenised) -> dict[str, tuple[float, Sequence[float]]]:
    """Name -> mean and one value per picture."""
    found, references = tokenised.found, tokenised.references
    scores = {"CIDEr": metrics.CiderD(df="corpus").compute_score(references, found)}
    means, each = metrics.Bleu().compute_score(references, found)
    scores |= {f"BLEU-{n + 1}": (means[n], each[n]) for n in range(4)}
    scores["ROUGE-L"] = metrics.RougeL().compute_score(references, found)
    try:
        scores["METEOR"] = metrics.Meteor().compute_score(references, found)
    except Exception as error:  # Java is missing or too old; the other scores are worth having
        logger.warning("METEOR left out: %s", error)
    return scores


def _validation_cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """CIDEr-D as validation during training computes it: no tokeniser, punctuation removed."""
    cleaned = {row: [remove_punctuation(text).strip() for text in texts] for row, texts in enumerate(references)}
    found = [{"image_id": row, "caption": [text]} for row, text in enumerate(predictions)]
    return float(metrics.CiderD(df="corpus").compute_score(cleaned, found)[0])


def best_constant(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[str, dict[str, float]]:
    """The caption that scores best (CIDEr) when it is the answer to every picture, and its scores.

    It is chosen on the very pictures it is scored on, which flatters it: a model has to beat the best case.

    Args: candidates: captions of the training pictures; the most frequent ones are tried.
    """
    tokenised = _tokenise([], references)
    # The commonest ones come first; of those that are as common as each other, a sample spread over all of them.
    common = [text for text, _ in Counter(candidates).most_common()]
    frequent = common[:CANDIDATES // 2]
    rest = common[CANDIDATES // 2:]
    step = max(1, len(rest) // (CANDIDATES // 2))
    tried = [" ".join(text.split()) for text in frequent + rest[::step][:CANDIDATES // 2]]
    captions = list(dict.fromkeys(metrics.ptb_tokenize(tried)))
    for pictures in (min(SCREENED_ON, len(references)), len(references)):
        some = {row: tokenised.references[row] for row in range(pictures)}
        score = {text: metrics.CiderD(df="corpus").compute_score(some, _always(text, pictures))[0] for text in captions}
        captions = sorted(captions, key=lambda text: -score[text])[:10]
    best = captions[0]
    means, _ = metrics.Bleu().compute_score(tokenised.references, _always(best, len(references)))
    return best, {"CIDEr": float(score[best]), "BLEU-4": float(means[3])}


def _always(text: str, pictures: int) -> list[dict]:
    return [{"image_id": row, "caption": [text]} for row in range(pictures)]
