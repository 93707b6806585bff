"""How good captions are: the scores of the COCO caption evaluation by pycocoevalcap, CIDEr-D and
BLEU in validation, and the constant baseline.

All scorers take tokenized captions in the form of ``CiderD.compute_score``.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from subprocess import CalledProcessError
from typing import Any

import numpy as np

from ofa.errors import UserError
from ofa.metrics.cider import CiderD, check_captions
from ofa.metrics.document_frequency import count_document_frequencies
from ofa.metrics.ptb import character_tokenize, ptb_tokenize
from ofa.task.intervals import Interval, intervals_of_means
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import Metric, Names, Scores, TaskMetrics, best_screened, mean
from ofa.task.text import caption_references, is_chinese, remove_punctuation

logger = logging.getLogger(__name__)

BLEU_ORDERS = {f"BLEU-{order + 1}": order for order in range(4)}
DEFAULT_NAMES = ("CIDEr", *BLEU_ORDERS, "ROUGE-L")
BY_ROW = ("CIDEr", "BLEU-4", "ROUGE-L")
CIDER_COUNTS = ("_cider_score_sum", "_cider_cnt")
BLEU_COUNTS = ("_bleu_sys_len", "_bleu_ref_len") + tuple(
    f"_bleu_{kind}_{order}" for kind in ("counts", "totals") for order in range(4)
)
EXPLANATIONS = {
    "CIDEr": "n-grams shared with the references, rare ones weighing more, of PTB words",
    "BLEU-4": "precision of n-grams up to four over the whole file",
    "ROUGE-L": "longest common subsequence with the nearest reference",
    "METEOR": "words aligned by form, stem and meaning",
    "SPICE": "objects, attributes and relations shared with the references",
    "CIDEr-D": "as validation computes it: CIDEr of words without punctuation",
}
Frequencies = str | Path | dict  # of n-grams, as ``CiderD`` takes them
MARKED = re.compile(r"(\W*)(.*?)(\W*)")  # marks before a word, the word, marks behind it
ZERO_BUT_CIDER_D = (
    "CIDEr of a single image is 0 whatever is predicted: read CIDEr-D, which has document"
    " frequencies of --cider-df"
)
SINGLE_IMAGE = (
    "CIDEr and CIDEr-D of a single image are 0 whatever is predicted: each n-gram occurs in all"
    " documents and weighs nothing; score at least two images, or take CIDEr-D with document"
    " frequencies, made by ofa cider-df (--cider-df of ofa evaluate and report,"
    " --eval-cider-cached-tokens of validation)"
)

# --- scorers of pycocoevalcap -------------------------------------------------------------------


class CocoScorer:
    """A scorer of pycocoevalcap. Raises: UserError where Java is missing or its program fails."""

    path = ""  # MODULE:CLASS
    arguments: tuple[Any, ...] = ()  # of it
    options: dict[str, Any] = {}  # of its ``compute_score``
    name, needs = "", ""  # of a Java program, and what it may lack when it fails

    def __init__(self):
        if self.needs and shutil.which("java") is None:
            raise UserError(
                f"{self.name} is a Java program, found no 'java'; install a runtime such as"
                " default-jre"
            )

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[Any, np.ndarray]:
        """Score of the set, and float64 scores in the order of ``res``; of BLEU four of each."""
        check_captions(gts, res)
        if not res:
            raise UserError("there are no captions to score")
        references = [[" ".join(text.split()) for text in gts[one["image_id"]]] for one in res]
        hypotheses = [[" ".join(one["caption"][0].split())] for one in res]
        texts = dict(enumerate(references)), dict(enumerate(hypotheses))
        scorer = resolve_name(f"pycocoevalcap.{self.path}")(*self.arguments)
        try:
            whole, each = scorer.compute_score(*texts, **self.options)
        except (CalledProcessError, ValueError, OSError) as error:  # it ended, or answered in words
            if not self.needs:
                raise
            raise UserError(
                f"{self.name}: the Java program failed ({error}); {self.needs}"
            ) from error
        finally:
            if process := getattr(scorer, "meteor_p", None):
                process.stdout.close()
                process.stderr.close()
        each = [one["All"]["f"] if isinstance(one, dict) else one for one in each]
        return np.array(whole).tolist(), np.array(each, dtype=float)


class Bleu(CocoScorer):
    """BLEU-1 to BLEU-4 of the whole set (closest reference length) and of each caption."""

    path, arguments, options = "bleu.bleu:Bleu", (4,), {"verbose": 0}


class RougeL(CocoScorer):
    """ROUGE-L with beta 1.2: the longest common subsequence with the best reference."""

    path = "rouge.rouge:Rouge"


class Meteor(CocoScorer):
    """METEOR 1.5 (English)."""

    path = "meteor.meteor:Meteor"
    name, needs = "METEOR", "is 'java' version 8 or later?"


class Spice(CocoScorer):
    """SPICE 1.0, with a parser that pycocoevalcap downloads. Raises: UserError without it."""

    path = "spice.spice:Spice"
    name, needs = "SPICE", "it needs Java 8 and 8 GB of memory"
    PARSER = "stanford-corenlp-3.6.0.jar"

    def __init__(self):
        super().__init__()
        folder = Path(resolve_name("pycocoevalcap.spice").__file__).parent / "lib"
        if not (folder / self.PARSER).is_file():
            raise UserError(
                f"SPICE needs {self.PARSER} in {folder}; with a network connection, fetch it by: "
                'python -c "from pycocoevalcap.spice.spice import Spice; Spice()"'
            )


SCORERS: dict[str, Any] = {"CIDEr": CiderD, "ROUGE-L": RougeL, "METEOR": Meteor, "SPICE": Spice}


def coco_caption_scores(
    gts: dict,
    res: list[dict],
    names: Sequence[str] = DEFAULT_NAMES,
    tokenize: Callable[[list[str]], list[str]] = ptb_tokenize,
) -> dict[str, tuple[float, np.ndarray]]:
    """Scores of the COCO caption evaluation: PTB tokens without punctuation, document frequencies
    of these references.

    Args:
        gts, res: as of ``CiderD.compute_score``, as written.
        names: some of CIDEr, BLEU-1 to BLEU-4, ROUGE-L, METEOR, SPICE; the last two need Java.
        tokenize: ``ofa.metrics.character_tokenize`` for Chinese.
    Returns: name -> (score of the set, float64 array in the order of ``res``).
    Raises: UserError for an unknown name, or for a score that cannot be computed here.
    """
    known = [*BLEU_ORDERS, *SCORERS]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"unknown caption score {unknown[0]!r}; known are {', '.join(known)}")
    check_captions(gts, res)
    # one call for all texts: the tokenizer may be a program with a slow start
    hypotheses = [row["caption"][0] for row in res]
    tokens = iter(tokenize([*(text for texts in gts.values() for text in texts), *hypotheses]))
    gts = {image_id: [next(tokens) for _ in texts] for image_id, texts in gts.items()}
    res = [{"image_id": row["image_id"], "caption": [next(tokens)]} for row in res]
    scores = {name: SCORERS[name]().compute_score(gts, res) for name in names if name in SCORERS}
    if not BLEU_ORDERS.keys().isdisjoint(names):
        scores |= dict(zip(BLEU_ORDERS, zip(*Bleu().compute_score(gts, res))))
    return {name: scores[name] for name in names}


# --- of texts as they are written ---------------------------------------------------------------


def caption_words(text: str, chinese: bool | None = None, marks: bool = False) -> str:
    """Words of a caption as CIDEr-D counts them in training, separated by spaces: without ASCII
    punctuation, ``"Two dogs, playing."`` -> ``"Two dogs playing"``; of Chinese characters without
    any punctuation, ``"两只狗，T恤"`` -> ``"两 只 狗 t 恤"``.

    Args:
        chinese: of a Chinese data set, its captions in Latin letters too; None: look at the text.
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


def words_of(captions: Iterable[str], chinese: bool | None = None) -> list[str]:
    return [caption_words(text, chinese) for text in captions]


def numbered(captions: Sequence[str]) -> list[dict]:
    """Captions in the form of ``CiderD.compute_score``."""
    return [{"image_id": row, "caption": [caption]} for row, caption in enumerate(captions)]


def tokenizer_of(references: Sequence[Sequence[str]]) -> Callable[[list[str]], list[str]]:
    """By character if any caption of the data set is Chinese, else PTB."""
    chinese = any(is_chinese(text) for texts in references for text in texts)
    return character_tokenize if chinese else ptb_tokenize


def caption_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str] | None = None,
    cider_df: Frequencies = "corpus",
) -> Scores:
    """The scores of the COCO evaluation after PTB tokenization (Chinese: by character), and the
    CIDEr-D of validation: overall, and those of ``BY_ROW`` for each image.

    Args: names: of ``coco_caption_scores``; default: all but SPICE, METEOR only if it can run.
        cider_df: document frequencies of CIDEr-D, see ``validation_cider``.
    Raises: UserError if a score that was asked for by name cannot be computed.
    """
    gts, res, tokenize = (
        dict(enumerate(references)),
        numbered(predictions),
        tokenizer_of(references),
    )
    found = coco_caption_scores(gts, res, DEFAULT_NAMES if names is None else names, tokenize)
    if names is None and tokenize is ptb_tokenize:
        try:
            found |= coco_caption_scores(gts, res, ["METEOR"], tokenize)
        except UserError as error:
            logger.warning("skipped: %s", error)
    overall = {name: float(score) for name, (score, _) in found.items()}
    overall["CIDEr-D"] = validation_cider(predictions, references, cider_df)
    by_row = {name: list(map(float, found[name][1])) for name in BY_ROW if name in found}
    return Scores(overall, by_row)


def validation_cider(
    predictions: Sequence[str], references: Sequence[Sequence[str]], df: Frequencies = "corpus"
) -> float:
    """CIDEr-D as validation during training computes it, see ``caption_words``. Args: df: document
    frequencies: those of the references, or a file of ``ofa cider-df`` or its content."""
    chinese = tokenizer_of(references) is character_tokenize
    gts = {row: words_of(texts, chinese) for row, texts in enumerate(references)}
    return CiderD(df=df).compute_score(gts, numbered(words_of(predictions, chinese)))[0]


def best_constant(
    lines: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[str, dict[str, float]]:
    """The caption that scores best (CIDEr) when it is the answer to every image, and its
    scores; see ``ofa.task.scoring``."""
    tokenize = tokenizer_of(references)
    tokens = iter(tokenize([text for texts in references for text in texts]))
    gts = {row: [next(tokens) for _ in texts] for row, texts in enumerate(references)}

    def cider(text: str, images: int) -> float:
        some = {row: gts[row] for row in range(images)}
        return CiderD().compute_score(some, numbered([text] * images))[0]

    best = best_screened(list(dict.fromkeys(tokenize(list(lines)))), len(gts), cider)
    bleu, _ = Bleu().compute_score(gts, numbered([best] * len(gts)))
    return best, {"CIDEr": cider(best, len(gts)), "BLEU-4": bleu[3]}


# --- validation ---------------------------------------------------------------------------------


class CaptionScorer:
    """Counts for CIDEr-D and BLEU that add up over batches and ranks. Without cached document
    frequencies CIDEr-D takes them from all references, not from the batch: a score must not depend
    on the batch size."""

    def __init__(self, options: Any, all_references: Callable[[], list[list[str]]]):
        self.options = options
        if options.eval_cider:
            cached = options.eval_cider_cached_tokens
            references = [] if cached else list(filter(any, all_references()))
            if len(references) == 1:
                logger.warning(SINGLE_IMAGE)
            self.cider = CiderD(cached or count_document_frequencies(map(words_of, references)))

    def __call__(self, found: list[Prediction], rows: list[BatchRow]) -> dict[str, float]:
        predictions = words_of(prediction.text for prediction in found)
        references = [words_of(split_references(row)) for row in rows]
        counts: dict[str, float] = {}
        if self.options.eval_cider:
            gts = dict(enumerate(references))
            scores = self.cider.compute_score(gts, numbered(predictions))[1]
            counts |= dict(zip(CIDER_COUNTS, (float(scores.sum()), len(scores))))
        if self.options.eval_bleu:
            counts |= bleu_counts(predictions, references)
        return counts


def split_references(row: BatchRow) -> list[str]:
    """The captions of a row, cleaned already; an empty one (``a cat&&``) is no reference."""
    return [text for text in caption_references(row.target, keep_punctuation=True) if text] or [""]


def bleu_counts(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """Lengths, and matching and possible n-grams, as sacrebleu counts them."""
    import sacrebleu  # a quarter of a second, which only those who score captions wait for

    streams: Any = list(map(list, zip_longest(*references)))
    bleu = sacrebleu.corpus_bleu(predictions, streams, tokenize="none")
    return dict(zip(BLEU_COUNTS, (bleu.sys_len, bleu.ref_len, *bleu.counts, *bleu.totals)))


def bleu_value(counts: Mapping[str, float]) -> float:
    import sacrebleu

    sys_len, ref_len, *ngrams = (int(counts[name]) for name in BLEU_COUNTS)
    return sacrebleu.BLEU.compute_bleu(ngrams[:4], ngrams[4:], sys_len, ref_len).score


class CaptionMetrics(TaskMetrics):
    """CIDEr-D and BLEU in validation, the scores of the COCO evaluation at the end."""

    figures = (
        mean("cider", *CIDER_COUNTS, attrgetter("eval_cider"), "validation CIDEr-D", digits=3),
        Metric("bleu", BLEU_COUNTS, bleu_value, attrgetter("eval_bleu"), "validation BLEU", 2),
    )
    references = staticmethod(split_references)
    make_scorer = staticmethod(CaptionScorer)
    best_constant = staticmethod(best_constant)

    def explanations(self) -> dict[str, str]:
        return EXPLANATIONS

    def intervals(self, scores: Scores) -> dict[str, Interval]:
        return intervals_of_means({name: scores.by_row[name] for name in scores.mean_names()})

    def final_scores(
        self,
        predictions: Sequence[Prediction],
        references: Sequence[Sequence[str]],
        names: Names = None,
        cider_df: Frequencies = "corpus",
    ) -> Scores:
        if len(references) == 1:
            logger.warning(SINGLE_IMAGE if cider_df == "corpus" else ZERO_BUT_CIDER_D)
        return caption_scores([one.text for one in predictions], references, names, cider_df)
