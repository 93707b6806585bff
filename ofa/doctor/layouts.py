"""The columns of every kind of data file, as the tasks read them."""

from dataclasses import dataclass, field

from ofa.errors import UserError

NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class TsvSchema:
    """A kind of file.

    Args:
        columns: name -> kind of column (``rules.CELL_RULES``), in the order of ``--selected-cols``.
        selected: the upstream ``--selected-cols``.
        max_src, max_tgt: words kept, as in upstream's recipes. labels: of a ``label`` column.
        codes: in a ``codes`` column. image_side: pixels, where every image must have them.
        by_type: content of the column ``type`` -> further kinds of columns of such a row.
    """

    columns: dict[str, str]
    selected: str
    max_src: int = 80
    max_tgt: int = 30
    labels: tuple[str, ...] = ()
    codes: int = 0
    image_side: int = 0
    by_type: dict[str, dict[str, str]] = field(default_factory=dict)


def _pair_of_texts(selected: str, *labels: str) -> TsvSchema:
    return TsvSchema(
        {"text1": "source", "text2": "source", "label": "label"}, selected, 512, 30, labels
    )


def _one_text(selected: str) -> TsvSchema:
    return TsvSchema({"text": "source", "label": "label"}, selected, 512, 30, ("0", "1"))


LAYOUTS = {
    "caption": TsvSchema({"id": "id", "image": "image", "caption": "caption"}, "0,4,2", max_tgt=20),
    "vqa_gen": TsvSchema(
        {
            "id": "id",
            "image": "image",
            "question": "question",
            "answers": "answers",
            "objects": "any",
        },
        "0,5,2,3,4",
    ),
    "grounded_qa": TsvSchema(
        {"id": "id", "image": "image", "question": "question", "box": "box", "answers": "answers"},
        "0,5,2,3,4",
    ),
    "refcoco": TsvSchema({"id": "id", "image": "image", "text": "phrase", "box": "box"}, "0,4,2,3"),
    "snli_ve": TsvSchema(
        {"id": "id", "image": "image", "hypothesis": "phrase", "caption": "any", "label": "label"},
        "0,2,3,4,5",
        labels=NLI,
    ),
    "image_classify": TsvSchema({"image": "image", "label": "class"}, "0,2", 128),
    "image_gen": TsvSchema(
        {"id": "id", "text": "source", "code": "codes"}, "0,2,1", 64, 1024, codes=1024
    ),
    "ocr": TsvSchema({"id": "id", "image": "image", "text": "reading"}, "0,1,2", max_tgt=64),
    "gigaword": TsvSchema({"source": "source", "target": "target"}, "0,1", 512, 64),
    "cola": _one_text("1,2"),
    "sst2": _one_text("0,1"),
    "mnli": _pair_of_texts("0,1,2", "0", "1", "2"),
    "mrpc": _pair_of_texts("0,1,2", "0", "1"),
    "qnli": _pair_of_texts("1,2,3", "0", "1", "entailment", "not_entailment"),
    "qqp": _pair_of_texts("3,4,5", "0", "1"),
    "rte": _pair_of_texts("1,2,3", "entailment", "not_entailment"),
    "vision_language": TsvSchema(
        {
            "id": "id",
            "image": "image",
            "caption": "any",
            "question": "any",
            "answers": "any",
            "objects": "any",
            "dataset": "any",
            "type": "label",
        },
        "0,1,2,3,4,5,6,7",
        labels=("caption", "qa", "visual_grounding"),
        by_type={
            "caption": {"caption": "caption"},
            "qa": {"question": "question", "answers": "answers"},
            "visual_grounding": {"caption": "phrase", "answers": "box"},
        },
    ),
    "text": TsvSchema({"id": "id", "text": "source"}, "0,1", 512),
    "image": TsvSchema(
        {"id": "id", "image": "image", "code": "codes"}, "0,1,2", codes=256, image_side=256
    ),
    "detection": TsvSchema({"id": "id", "image": "image", "objects": "detections"}, "0,1,2"),
}
FILE_NAMES = {  # how upstream files begin -> task
    "caption": "caption",
    "vqa": "vqa_gen",
    "trainval": "vqa_gen",
    "grounded_qa": "grounded_qa",
    "refcoco": "refcoco",
    "snli_ve": "snli_ve",
    "imagenet": "image_classify",
    "image_classify": "image_classify",
    "coco_vqgan": "image_gen",
    "image_gen": "image_gen",
    "ocr": "ocr",
    "gigaword": "gigaword",
    "vision_language": "vision_language",
    "text": "text",
    "image": "image",
    "detection": "detection",
    "cola": "cola",
    "sst2": "sst2",
    "mnli": "mnli",
    "mrpc": "mrpc",
    "qnli": "qnli",
    "qqp": "qqp",
    "rte": "rte",
}
PRETRAINING = ("vision_language", "text", "image", "detection")  # the files of unify_task
UNIFY = "unify_task"


def guess_task(name: str, task: str | None = None) -> str | None:
    """The layout of a file by its name. Args: task: ``--task``; ``unify_task`` has one layout
    per file."""
    if task and task != UNIFY:
        return task
    known = PRETRAINING if task == UNIFY else FILE_NAMES
    for start in sorted(known, key=len, reverse=True):
        if name.startswith(start):
            return FILE_NAMES[start]
    if task == UNIFY:
        raise UserError(
            f"{name}: expected a pretraining file whose name begins with {', '.join(PRETRAINING)};"
            " say what it is with --task vision_language, text, image or detection"
        )
    return None


def selected_columns(layout: TsvSchema, selected: str | None) -> dict[str, int]:
    """Column name -> number. Raises: UserError if ``--selected-cols`` does not fit the task."""
    text = selected or layout.selected
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise UserError(
            f"--selected-cols={text}: expects numbers such as {layout.selected} (counted from 0)"
        )
    names = list(layout.columns)
    if len(numbers) == 2 and names == [
        "id",
        "text",
        "code",
    ]:  # text alone is enough to generate images
        names = names[:2]
    elif len(numbers) == 4 and names == ["id", "text", "code"]:
        names = ["id", "image", "text", "code"]
    if len(numbers) < len(names):
        raise UserError(
            f"--selected-cols={text}: expects {len(names)} columns ({', '.join(names)}), found"
            f" {len(numbers)}; upstream's files have {layout.selected}"
        )
    return dict(zip(names, numbers))
