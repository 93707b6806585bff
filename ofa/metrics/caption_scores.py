"""Scores of captions as the COCO caption server computes them, and of the best answer that looks
at no image."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ofa.errors import UserError
from ofa.metrics import Bleu, CiderD, character_tokenize, coco_caption_scores, ptb_tokenize
from ofa.task.chinese import is_chinese
from ofa.task.task_spec import Scores
from ofa.task.text import remove_punctuation

logger = logging.getLogger(__name__)

NAMES = ("CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L")
BY_ROW = ("CIDEr", "BLEU-4", "ROUGE-L")
ZERO_BUT_CIDER_D = (
    "CIDEr of a single image is 0 whatever is predicted: read CIDEr-D, which has document"
    " frequencies of --cider-df"
)
Frequencies = str | Path | dict  # of n-grams, as ``CiderD`` takes them
MARKED = re.compile(r"(\W*)(.*?)(\W*)")  # marks before a word, the word, marks behind it
SINGLE_IMAGE = (
    "CIDEr and CIDEr-D of a single image are 0 whatever is predicted: each n-gram occurs in all"
    " documents and weighs nothing; score at least two images, or take CIDEr-D with document"
    " frequencies, made by ofa cider-df (--cider-df of ofa evaluate and report,"
    " --eval-cider-cached-tokens of validation)"
)
# images on which all constant captions are tried; the best few are tried on all images
SCREENED_ON = 100


def caption_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str] | None = None,
    cider_df: Frequencies = "corpus",
) -> Scores:
    """The scores of the COCO evaluation after PTB tokenization (Chinese: by character), and the
    CIDEr-D of validation.

    Args:
        predictions, references: one prediction and its references per image.
        names: which of ``ofa.metrics.coco_caption_scores``; default: all but SPICE, METEOR only if
            it can run.
        cider_df: document frequencies of CIDEr-D, see ``validation_cider``.
    Returns: overall scores, and those of ``BY_ROW`` for each image.
    Raises: UserError if a score that was asked for by name cannot be computed.
    """
    gts, res = dict(enumerate(references)), numbered(predictions)
    tokenize = tokenizer_of(references)
    found = coco_caption_scores(gts, res, NAMES if names is None else names, tokenize)
    if names is None and tokenize is ptb_tokenize:
        try:
            found |= coco_caption_scores(gts, res, ["METEOR"], tokenize)
        except UserError as error:
            logger.warning("skipped: %s", error)
    scores = Scores(
        {name: float(mean) for name, (mean, _) in found.items()},
        {name: [float(value) for value in found[name][1]] for name in BY_ROW if name in found},
    )
    scores.overall["CIDEr-D"] = validation_cider(predictions, references, cider_df)
    return scores


def numbered(captions: Sequence[str]) -> list[dict]:
    """Captions in the form of ``CiderD.compute_score``."""
    return [{"image_id": row, "caption": [caption]} for row, caption in enumerate(captions)]


def tokenizer_of(references: Sequence[Sequence[str]]) -> Callable[[list[str]], list[str]]:
    """By character if any caption of the data set is Chinese, else PTB."""
    return (
        character_tokenize
        if any(is_chinese(text) for texts in references for text in texts)
        else ptb_tokenize
    )


def caption_words(text: str, chinese: bool | None = None, marks: bool = False) -> str:
    """Words of a caption as CIDEr-D counts them in training, separated by spaces.

    ASCII punctuation is removed, letters keep their case: ``"Two dogs, playing."`` -> ``"Two dogs
    playing"``. Chinese is taken character by character, without any punctuation: ``"两只狗，T恤"``
    -> ``"两 只 狗 t 恤"``.

    Args:
        chinese: of a Chinese data set, where captions in Latin letters are taken as Chinese ones
            are; None: look at the text.
        marks: marks of punctuation around words are words of their own: ``"Two dogs , playing ."``.
    """
    if is_chinese(text) if chinese is None else chinese:
        return character_tokenize([text], marks)[0]
    if not marks:
        return " ".join(remove_punctuation(text).split())
    found: list[str] = []
    for chunk in map(MARKED.fullmatch, text.split()):
        before, word, behind = chunk.groups() if chunk else ("", "", "")
        found += [*before, remove_punctuation(word), *behind]
    return " ".join(filter(None, found))


def validation_cider(
    predictions: Sequence[str], references: Sequence[Sequence[str]], df: Frequencies = "corpus"
) -> float:
    """CIDEr-D as validation during training computes it, see ``caption_words``.

    Args: df: document frequencies: those of the references, or a file of ``ofa cider-df`` or its
    content.
    """
    chinese = tokenizer_of(references) is character_tokenize
    cleaned = {
        row: [caption_words(text, chinese) for text in texts]
        for row, texts in enumerate(references)
    }
    found = numbered([caption_words(text, chinese) for text in predictions])
    return float(CiderD(df=df).compute_score(cleaned, found)[0])


def best_constant(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[str, dict[str, float]]:
    """The caption that scores best (CIDEr) when it is the answer to every image, and its
    scores; see ``ofa.task.constant_baseline``."""
    tokenize = tokenizer_of(references)
    tokens = iter(tokenize([text for texts in references for text in texts]))
    gts = {row: [next(tokens) for _ in texts] for row, texts in enumerate(references)}
    captions = list(dict.fromkeys(tokenize(list(candidates))))
    for images in (min(SCREENED_ON, len(gts)), len(gts)):
        some = {row: gts[row] for row in range(images)}
        score = {
            text: float(CiderD(df="corpus").compute_score(some, numbered([text] * images))[0])
            for text in captions
        }
        captions = sorted(captions, key=lambda text: -score[text])[:10]
    best = captions[0]
    means, _ = Bleu().compute_score(gts, numbered([best] * len(gts)))
    return best, {"CIDEr": score[best], "BLEU-4": means[3]}
