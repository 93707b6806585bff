"""BLEU, ROUGE-L, METEOR and SPICE of captions by pycocoevalcap, and the scores of the COCO caption
evaluation.

All scorers take tokenized captions in the form of ``CiderD.compute_score``.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CalledProcessError

import numpy as np

from ofa.errors import UserError
from ofa.metrics.cider import CiderD, check_captions
from ofa.metrics.ptb import ptb_tokenize

BLEU_ORDERS = {f"BLEU-{order + 1}": order for order in range(4)}
DEFAULT_NAMES = ("CIDEr", *BLEU_ORDERS, "ROUGE-L")


def by_row(gts: dict, res: list[dict]) -> tuple[dict, dict]:
    """References and hypothesis by the number of the result, as pycocoevalcap takes them."""
    check_captions(gts, res)
    if not res:
        raise UserError("there are no captions to score")
    references = {
        row: [" ".join(text.split()) for text in gts[result["image_id"]]]
        for row, result in enumerate(res)
    }
    return references, {
        row: [" ".join(result["caption"][0].split())] for row, result in enumerate(res)
    }


class Bleu:
    """BLEU-1 to BLEU-4 of the whole set (closest reference length) and of each caption."""

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[list[float], list[np.ndarray]]:
        """Returns: four means and four float64 arrays in the order of ``res``."""
        from pycocoevalcap.bleu.bleu import Bleu as Scorer

        means, each = Scorer(4).compute_score(*by_row(gts, res), verbose=0)
        return [float(mean) for mean in means], [np.array(scores) for scores in each]


class RougeL:
    """ROUGE-L with beta 1.2: the longest common subsequence with the best reference."""

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[float, np.ndarray]:
        from pycocoevalcap.rouge.rouge import Rouge

        mean, each = Rouge().compute_score(*by_row(gts, res))
        return float(mean), np.array(each)


class Meteor:
    """METEOR 1.5 (English); a Java program. Raises UserError where Java is missing."""

    def __init__(self):
        require_java("METEOR")

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[float, np.ndarray]:
        from pycocoevalcap.meteor.meteor import Meteor as Scorer

        scorer = Scorer()
        try:
            mean, each = scorer.compute_score(*by_row(gts, res))
        except (ValueError, OSError) as error:  # it ended, or answered in words
            raise UserError(
                f"METEOR: the Java program failed ({error}); is 'java' version 8 or later?"
            ) from error
        finally:
            for pipe in (scorer.meteor_p.stdout, scorer.meteor_p.stderr):
                pipe.close()
        return float(mean), np.array(each)


class Spice:
    """SPICE 1.0, a Java program with a parser that pycocoevalcap downloads. Raises: UserError."""

    PARSER = "stanford-corenlp-3.6.0.jar"

    def __init__(self):
        require_java("SPICE")
        from pycocoevalcap import spice

        folder = Path(spice.__file__).parent / "lib"
        if not (folder / self.PARSER).is_file():
            raise UserError(
                f"SPICE needs {self.PARSER} in {folder}; with a network connection, fetch it by: "
                'python -c "from pycocoevalcap.spice.spice import Spice; Spice()"'
            )

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[float, np.ndarray]:
        from pycocoevalcap.spice.spice import Spice as Scorer

        try:
            mean, each = Scorer().compute_score(*by_row(gts, res))
        except (CalledProcessError, OSError) as error:
            raise UserError(
                f"SPICE: the Java program failed ({error}); it needs Java 8 and 8 GB of memory"
            ) from error
        return float(mean), np.array([scores["All"]["f"] for scores in each], dtype=float)


def require_java(what: str) -> None:
    if shutil.which("java") is None:
        raise UserError(
            f"{what} is a Java program, found no 'java'; install a runtime such as default-jre"
        )


SCORERS: dict[str, Callable] = {
    "CIDEr": CiderD,
    "ROUGE-L": RougeL,
    "METEOR": Meteor,
    "SPICE": Spice,
}


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
    unknown = [name for name in names if name not in SCORERS and name not in BLEU_ORDERS]
    if unknown:
        raise UserError(
            f"unknown caption score {unknown[0]!r}; known are {', '.join([*BLEU_ORDERS, *SCORERS])}"
        )
    check_captions(gts, res)
    # one call for all texts: the tokenizer may be a program with a slow start
    hypotheses = [row["caption"][0] for row in res]
    tokens = iter(tokenize([*(text for texts in gts.values() for text in texts), *hypotheses]))
    gts = {image_id: [next(tokens) for _ in texts] for image_id, texts in gts.items()}
    res = [{"image_id": row["image_id"], "caption": [next(tokens)]} for row in res]
    scores = {name: SCORERS[name]().compute_score(gts, res) for name in names if name in SCORERS}
    if any(name in BLEU_ORDERS for name in names):
        means, each = Bleu().compute_score(gts, res)
        scores |= {name: (means[order], each[order]) for name, order in BLEU_ORDERS.items()}
    return {name: scores[name] for name in names}
