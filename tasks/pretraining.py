"""What the eight tasks of pretraining (``tasks/fairseq_mixture.py``) ask and expect.

    caption              what does the image describe?                 a cat on a mat
    qa                   what color is the cat?                        black
    visual_grounding     which region does the text " a cat " describe? <bin> <bin> <bin> <bin>
    grounded_captioning  what does the region describe? region: <bin> <bin> <bin> <bin>   a cat
    image_text_matching  does the image describe " a dog "?            no
                         what is the answer to question " ... ". is " black "?   yes
    detection            what are the objects in the image?            <bin> <bin> <bin> <bin> cat
    image_infilling      what is the image in the middle part?         <code> <code> ...
    text_infilling       what is the complete text of " a <mask> on a mat "?   a cat on a mat

Each begins with a space, grounded captioning with two. A row of pairs gives its own sample and a
second one of the same image: matching for captions and questions, grounded captioning for boxes.
"""

from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING

from ofa.errors import UserError, place
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import parse_objects
from ofa.task.pretraining_tasks import PAIR_TASKS, PretrainingContext, Row, RowKind, RowType
from ofa.task.task_spec import Example, Symbols, Text
from ofa.task.text import clean_phrase, clean_question, parse_answers, split_objects
from ofa.tasks import caption as caption_task
from ofa.tasks import refcoco, snli_ve
from ofa.tasks.vqa_gen import ANSWERS, QUESTION
from ofa.tokens.boxes import check_inside, parse_box
from ofa.tokens.image_codes import CODE_SIDE, text_to_codes
from ofa.tokens.vocabulary import code_symbol

if TYPE_CHECKING:
    import torch  # only where samples are made: commands start without it

CAPTION = caption_task.PROMPTS["en"]
MATCHING_CAPTION = snli_ve.PROMPT
MATCHING_ANSWER = ' what is the answer to question " {} ". is " {} "?'
GROUNDING = refcoco.PROMPTS["en"]
GROUNDED_CAPTION = "  what does the region describe? region:"
DETECTION = " what are the objects in the image?"
IMAGE_INFILLING = " what is the image in the middle part?"
TEXT_INFILLING = (' what is the complete text of "', ' "?')
YES, NO = " yes", " no"
MATCHING = "image_text_matching"
CC12M = "cc12m"
EXTRA_WEIGHT = 2.0  # confidence of the auxiliary rows, as upstream


def caption(row: Row, context: PretrainingContext) -> list[Example]:
    """Captions of cc12m are often cut off in front: two tokens are given, not learned."""
    target = clean_phrase(row["caption"], context.options.max_tgt_length)
    text = required(row, "caption", target, context)
    pixels = context.images.full_view(context.open_image(row["image"]))
    ahead = 2 if row["dataset"].strip() == CC12M else 0
    found = [sample("caption", row, CAPTION, f" {text}", pixels, unscored=ahead)]
    if context.negatives is not None:
        limit, objects = context.options.max_src_length, split_objects(row["objects"])
        fitting = clean_phrase(row["caption"], limit)
        other = context.negatives.caption(row["caption"], objects, context.rng)
        shown, answer = one_of(fitting, clean_phrase(other, limit), context)
        found.append(sample(MATCHING, row, MATCHING_CAPTION.format(shown), answer, pixels))
    return found


def question(row: Row, context: PretrainingContext) -> list[Example]:
    """As upstream the question is asked as it stands, with or without a question mark."""
    text = clean_question(row["question"], context.options.max_src_length)
    required(row, "question", text, context)
    required(row, "answers", row["answers"].strip(), context)
    pixels = context.images.full_view(context.open_image(row["image"]))
    answers = parse_answers(row["answers"], context.where)
    best, sure = max(answers.items(), key=itemgetter(1))
    found = [sample("qa", row, f" {text}", f" {best}", pixels, sure)]
    if context.negatives is not None:
        other = context.negatives.answer(best, sure, context.rng)
        shown, answer = one_of(best, other, context)
        source = MATCHING_ANSWER.format(text, shown)
        found.append(sample(MATCHING, row, source, answer, pixels, sure))
    return found


def one_of(fitting: str, other: str, context: PretrainingContext) -> tuple[str, str]:
    """What fits or what does not, and whether it does."""
    fits = context.rng.random() >= 0.5 or other == fitting
    return (fitting, YES) if fits else (other, NO)


def grounding(row: Row, context: PretrainingContext) -> list[Example]:
    source = clean_phrase(row["caption"], context.options.max_src_length)
    text = required(row, "caption", source, context)
    image = context.open_image(row["image"])
    box = parse_box(row["answers"], context.where)
    check_inside(box, image.size, context.where)
    pixels, bins = context.images.crop_around_box(image, box)
    target = clean_phrase(row["caption"], context.options.max_tgt_length)
    return [
        sample("visual_grounding", row, GROUNDING.format(text), bins, pixels),
        sample("grounded_captioning", row, (GROUNDED_CAPTION, bins), f" {target}", pixels),
    ]


def required(row: Row, column: str, text: str, context: PretrainingContext) -> str:
    """The text, made of a column. Raises: UserError if nothing is left of it."""
    if not text:
        raise UserError(
            f"{place(context.where)}type '{row.get('type', 'text').strip()}' expects {column} with"
            f" at least one word, found {row[column][:40]!r}; fill it in or remove the row"
        )
    return text


def text_infilling(row: Row, context: PretrainingContext) -> list[Example]:
    text = required(row, "text", row["text"].strip().lower(), context)
    masked, whole = context.images.corrupt_spans(f" {text}")
    source = (TEXT_INFILLING[0], masked, TEXT_INFILLING[1])
    pixels, masks = context.images.blank_image(), {"patch_mask": False, "code_mask": False}
    return [sample("text_infilling", row, source, whole, pixels, EXTRA_WEIGHT, **masks)]


def image_infilling(row: Row, context: PretrainingContext) -> list[Example]:
    options, image = context.options, context.open_image(row["image"])
    side = 2 * options.code_image_size
    if image.size != (side, side):
        raise UserError(
            f"{place(context.where)}image infilling expects an image of {side} x {side} pixels,"
            f" twice --code-image-size, found {image.width} x {image.height}: the codes belong to"
            " other pixels; resize the image, then encode its middle again (ofa tokenizer encode)"
        )
    count = (options.code_image_size // CODE_SIDE) ** 2
    codes = text_to_codes(row["codes"], options.code_dict_size, count, context.where)
    target = Symbols(" ".join(map(code_symbol, codes.tolist())))
    pixels, masks = context.images.mask_center(image), {"patch_mask": True, "code_mask": True}
    return [sample("image_infilling", row, IMAGE_INFILLING, target, pixels, EXTRA_WEIGHT, **masks)]


def detection(row: Row, context: PretrainingContext) -> list[Example]:
    """The objects in the order of the file; those outside of the cut are left out."""
    image = context.open_image(row["image"])
    objects = parse_objects(row["objects"], context.where, "detection")
    for box, _ in objects:
        check_inside(box, image.size, context.where)
    pixels, found = context.images.detection_view(image, [list(box) for box, _ in objects])
    target = [part for number, bins in found for part in (bins, f" {objects[number][1]}")]
    masks = {"patch_mask": True, "code_mask": False}
    return [sample("detection", row, DETECTION, target, pixels, EXTRA_WEIGHT, **masks)]


def sample(
    task: str,
    row: Row,
    source: Text,
    target: Text,
    pixels: "torch.Tensor",
    confidence: float = 1.0,
    unscored: int = 0,
    **masks: bool,
) -> Example:
    """Args: masks: of auxiliary rows (``ofa.data.sample.Sample``); pairs have no codes."""
    import torch

    extra = {"task": task, "conf": torch.tensor([confidence]), "code_mask": None}
    extra |= {name: torch.tensor([mask]) for name, mask in masks.items()}
    return Example(source, target, id=row["id"], image=pixels, unscored=unscored, extra=extra)


EMPTY = ("caption", "question", "answers", "objects", "dataset")  # where the type has none
PAIRS = RowKind(
    name="vision_language",
    columns=(
        ID,
        IMAGE,
        *(Column(name, may_be_empty=True) for name in EMPTY),
        Column("type", "label", labels={name: name for name in PAIR_TASKS[:3]}),
    ),
    types={
        "caption": RowType(
            tasks=("caption", MATCHING),
            read=caption,
            columns=(replace(caption_task.CAPTIONS, max_words=30),),
        ),
        "qa": RowType(tasks=("qa", MATCHING), read=question, columns=(QUESTION, ANSWERS)),
        "visual_grounding": RowType(
            tasks=("visual_grounding", "grounded_captioning"),
            read=grounding,
            columns=(replace(refcoco.PHRASE, name="caption"), replace(refcoco.BOX, name="answers")),
        ),
    },
)
EXTRAS = {
    task: RowKind(name=name, columns=columns, types={task: RowType(tasks=(task,), read=read)})
    for task, name, columns, read in (
        ("text_infilling", "text", (ID, Column("text", max_words=512)), text_infilling),
        ("image_infilling", "image", (ID, IMAGE, Column("codes", "image_codes")), image_infilling),
        ("detection", "detection", (ID, IMAGE, Column("objects", "boxes")), detection),
    )
}
