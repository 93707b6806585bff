"""Text to image: `` what is the complete image? caption: a red circle`` -> ``<code_17> <code_4>
...``, an image row by row.

Columns ``id, text, code`` (``--selected-cols 0,2,1`` of upstream's files), ``id, text`` for
captions that have no image, or ``id, image, text, code``. ``code`` has one number for 8 x 8
pixels of a square of ``--code-image-size``, from the top left corner on: 1024 for 256 pixels.
Images are drawn by chance; a scorer puts the best first (``ofa.tasks.fairseq_image_generation``).
"""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Optional

from PIL import Image

from ofa.io.flags import option
from ofa.io.image_grid import grid_of_files
from ofa.task.columns import ID, Column
from ofa.task.prediction import BatchRow, Hypothesis, Prediction, Shown
from ofa.task.scoring import Names, Scores, TaskMetrics, mean
from ofa.task.task_spec import Example, RowContext, SampledOptions, Symbols, TaskSpec, Usage, decode
from ofa.tokens.image_codes import CODE_SIDE, text_to_codes
from ofa.tokens.vocabulary import code_symbol

PROMPT = " what is the complete image? caption:"
TEXT = Column("text", max_words=64, example="a large red circle")
CODES = Column("code", "image_codes", target=True, may_be_absent=True)
CODE = re.compile(re.escape(code_symbol(0)).replace("0", "([0-9]{1,9})"))
ALL = 1 << 20  # every sample of a caption is kept
CLIP_METHODS = ("ti_sim", "ii_sim")


@dataclass
class DrawingOptions(SampledOptions):
    code_image_size: int = option(256, "side of an image, pixels; 8 x 8 pixels have one code")
    sampling_times: int = option(1, "images of a caption: beam x this")
    eval_clip_method: str = option(
        "ti_sim",
        "compare images with their caption (ti_sim) or the true image (ii_sim)",
        choices=CLIP_METHODS,
    )
    image_tokenizer: Optional[str] = option(
        None, "makes images: tokenizer.pt, or folder of a VQGAN"
    )
    vqgan_model_path: Optional[str] = option(None, "last.ckpt of a VQGAN, as --image-tokenizer")
    vqgan_config_path: Optional[str] = option(None, "model.yaml of --vqgan-model-path")
    clip_model_path: Optional[str] = option(
        None, "weights of CLIP (ViT-B-16.pt), which rank images"
    )
    image_text_scorer: Optional[str] = option(None, "MODULE:CLASS with score(), instead of CLIP")
    gen_images_path: Optional[str] = option(None, "folder for the images of 'ofa evaluate'")


def num_codes(options: Any) -> int:
    return (options.code_image_size // CODE_SIDE) ** 2


def drawing_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row. One without codes cannot be learned; elsewhere zeros stand for them."""
    import torch

    options = context.options
    words = row["text"].split()[: options.max_src_length]
    if not words:
        raise context.error("a caption", repr(row["text"]))
    count, column = num_codes(options), row.get("code", "")
    if column.strip():
        codes = text_to_codes(column, options.code_dict_size, count, context.where).tolist()
    elif context.training and not options.scst:
        remedy = "make them by 'ofa tokenizer encode', and name their column in --selected-cols"
        raise context.error(f"rows with {count} codes to learn", "none", remedy)
    else:
        codes = [0] * count  # as upstream
    image = row.get("image", "").encode("ascii", "replace") or blank_image(options.code_image_size)
    return Example(
        id=row["id"],
        source=f"{PROMPT} {' '.join(words)}",
        target=Symbols(" ".join(map(code_symbol, codes))),
        extra={"code_mask": torch.tensor([True]), "code_image": image},
    )


@cache
def blank_image(side: int) -> bytes:
    """Base64 of a black image, which stands for one that is not in the file."""
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return base64.urlsafe_b64encode(file.getvalue())


def drawing(hypothesis: Hypothesis, row: BatchRow, options: DrawingOptions) -> Prediction:
    codes = codes_of(hypothesis.symbols)
    return Prediction(caption_of(row.source), hypothesis.score, codes=codes)


def codes_of(symbols: str) -> tuple[int, ...]:
    return tuple(map(int, CODE.findall(symbols)))


def caption_of(source: str) -> str:
    """What is asked without the prompt in front; ``/`` is left out, as upstream."""
    return source[source.find(PROMPT.strip()) + len(PROMPT.strip()) :].replace("/", "").strip()


def true_codes(row: BatchRow) -> Optional[tuple[int, ...]]:
    codes = codes_of(row.target)
    return codes if any(codes) else None


def result_row(row_id: Any, prediction: Prediction) -> dict[str, Any]:
    """One entry of the result file: the images of a caption, best first."""
    images = [prediction, *prediction.others]
    return {
        "id": str(row_id),
        "caption": prediction.text,
        "files": [one.file for one in images if one.file is not None],
        "scores": [rounded(one.clip_score) for one in images],
        "log_probabilities": [rounded(one.score) for one in images],
        "seed": prediction.seed,
        "codes": " ".join(map(str, prediction.codes or ())),
    }


def rounded(value: float) -> Optional[float]:
    """To a thousandth: what lies behind depends on the number of threads. None: not known."""
    return None if value != value else round(float(value), 3)


def makes_and_scores_images(options: DrawingOptions) -> bool:
    """Whether this run knows what to make images with, and how good they are."""
    scorer = options.clip_model_path or options.image_text_scorer
    return bool((options.image_tokenizer or options.vqgan_model_path) and scorer)


class DrawingMetrics(TaskMetrics):
    """How well the images fit that a scorer has judged: the best ones, and all."""

    title = "validation score of images"
    figures = (mean("score", "_score_sum", "_score_cnt", makes_and_scores_images, title),)
    reported = (*figures, mean("mean of all", "_all_sum", "_score_cnt"))

    def references(self, row: BatchRow) -> list[str]:
        return [caption_of(row.source)]

    def row_counts(self, prediction: Prediction, reference: Any) -> dict[str, float]:
        fits = [one.clip_score for one in (prediction, *prediction.others)]
        if math.isnan(fits[0]):
            return dict.fromkeys(("_score_sum", "_score_cnt", "_all_sum"), 0)
        return {"_score_sum": fits[0], "_score_cnt": 1, "_all_sum": sum(fits) / len(fits)}

    def final_scores(
        self, predictions: Sequence[Prediction], references: Sequence[Any], names: Names = None
    ) -> Scores:
        if any(math.isnan(prediction.clip_score) for prediction in predictions):
            return Scores()
        return super().final_scores(predictions, references)


class DrawingSpec(TaskSpec):
    """A task whose files may also have an image before the text."""

    def names_of(self, count: int, where: str) -> tuple[str, ...]:
        return ("id", "image", "text", "code") if count == 4 else super().names_of(count, where)

    def shown(self, row: Mapping[str, str], prediction: Prediction, references: Any) -> Shown:
        """All images of a caption, best first, beside the true one; below them the caption."""
        files = [one.file for one in (prediction, *prediction.others) if one.file is not None]
        return Shown(answer=row["text"], image=grid_of_files(files) or row.get("image", ""))


SPEC = DrawingSpec(
    name="image_gen",
    aliases=("draw",),
    columns=(ID, TEXT, CODES),
    default_cols="0,2,1",
    usage=Usage(
        verb="draw",
        title="Draw",
        noun="drawing",
        about="Images of a text, drawn by chance; those first that fit it best.",
        button="Draw",
        files=("image_gen", "coco_vqgan"),
        generation={"en": {"beam": 16, "sampling_topk": 256}},
    ),
    options=DrawingOptions,
    example=drawing_example,
    prediction=drawing,
    result=result_row,
    decoding=partial(decode, codes_only=True, best=ALL),
    metrics=DrawingMetrics(),
)
