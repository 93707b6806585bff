"""``ofa evaluate`` and the Python API ask one predictor: the same row gets the same answer."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_checkpoint import save_checkpoint
from small_tokenizer import small_tokenizer

from ofa import OFA
from ofa.errors import UserError
from ofa.inference.evaluate import evaluate
from ofa.inference.options import EvaluationOptions
from ofa.io.image_grid import as_field
from ofa.task.task_spec import seed_of
from ofa.tasks import declared_specs, spec_of

LINE = "[image] what is on the [text:thing]? -> [text:answer]"
NAMES = [*(spec.name for spec in declared_specs()), LINE]
LONG = {"fp16": "float16", "bf16": "bfloat16"}
VALUES = {"text": "a cube", "texts": "a cube", "box": "1,2,20,30", "answer": "1.0|!+yes"}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    return torch.load(path, weights_only=False)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (40, 30, 3), dtype=np.uint8)) for _ in range(2)]


def checkpoint_of(name, content, folder, **options):
    """A checkpoint that says that it was trained on a task."""
    stored = {"_name": "template", "template": name} if "->" in name else {"_name": name}
    if name == "image_classify":
        stored["ans2label_dict"] = json.dumps({"red": 0, "green": 1, "blue": 2})
    task = {**content["cfg"]["task"], **stored, **options}
    torch.save({**content, "cfg": {**content["cfg"], "task": task}}, folder / "a.pt")
    return folder / "a.pt"


def value_of(column, image, row) -> str:
    if column.kind == "id":
        return str(row)
    if column.kind == "image":
        return as_field(image)
    if column.kind == "label":
        return next(iter(column.labels), "red")
    return VALUES.get(column.kind, "") if column.needed or column.target else ""


def evaluated(name, path, images, folder, **options):
    spec = spec_of(name)
    columns = [column for column in spec.columns if not column.may_be_absent]
    rows = [
        [value_of(column, image, row) for column in columns] for row, image in enumerate(images)
    ]
    (folder / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    return evaluate(
        EvaluationOptions(
            checkpoint=str(path),
            data=str(folder / "rows.tsv"),
            device="cpu",
            overrides={"selected_cols": ",".join(map(str, range(len(columns))))},
            **options,
        )
    ).predictions


def asked(name, path, images, **options):
    spec, model = spec_of(name), OFA.load(path, device="cpu")
    words = {
        column.public_name: (1, 2, 20, 30) if column.kind == "box" else VALUES[column.kind]
        for column in spec.asked
        if column.needed
    }
    if spec.has("image"):
        return model.ask_columns(name, images, words, **options)
    words = {word: [text] * len(images) for word, text in words.items()}
    return model.ask_columns(name, None, words, **options)


def told(found, boxes):
    return [(one.box if boxes else str(getattr(one, "text", one)), one.score) for one in found]


@pytest.mark.parametrize("given", [{}, {"beam": 2, "max_len_b": 3}], ids=["stored", "given"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "image_gen"])
def test_the_same_row_gets_the_same_answer_and_score(name, given, content, images, tmp_path):
    path = checkpoint_of(name, content, tmp_path, eval_args='{"beam": 3, "max_len_b": 6}')
    predictions = evaluated(name, path, images, tmp_path, generation=given)
    boxes = any(column.kind == "box" for column in spec_of(name).targets)
    assert told(predictions, boxes) == told(asked(name, path, images, **given), boxes)


@pytest.mark.parametrize("precision, close", [("fp16", 0.005), ("bf16", 0.02)])
def test_in_16_bits_texts_and_boxes_are_those_of_float32(
    precision, close, content, images, tmp_path
):
    path = checkpoint_of("caption", content, tmp_path)
    exact, rounded = (OFA.load(path, device="cpu", precision=given) for given in (None, precision))
    assert (exact.dtype, str(rounded.dtype)) == (torch.float32, f"torch.{LONG[precision]}")
    for name, *words in (("caption",), ("refcoco", "a cube")):
        expected, found = (
            zip(*told(model.ask(name, images, *words, beam=2, max_len_b=4), name == "refcoco"))
            for model in (exact, rounded)
        )
        answers, scores = expected
        assert next(found) == answers and next(found) == pytest.approx(scores, abs=close)


def test_without_stored_options_both_take_those_of_the_task(content, images, tmp_path):
    path = checkpoint_of("caption", content, tmp_path)
    predictions = evaluated("caption", path, images, tmp_path)
    assert told(predictions, False) == told(asked("caption", path, images), False)
    assert {len(one.text) for one in predictions} == {16}, "the length of the task's usual options"


def test_a_task_that_was_not_trained_is_asked_as_zero_shot(content, images, tmp_path):
    path, given = checkpoint_of("caption", content, tmp_path), {"beam": 2, "max_len_b": 3}
    options = {"task": "vqa_gen", "zero_shot": True, "generation": given}
    predictions = evaluated("vqa_gen", path, images, tmp_path, **options)
    assert told(predictions, False) == told(asked("vqa_gen", path, images, **given), False)
    assert all(one.text for one in predictions), "the prompt does not count as a part of the answer"


@pytest.fixture
def pretrained(content, tmp_path):
    """A pretraining of another machine: its files are not here."""
    elsewhere = {"data": "/elsewhere/pairs.tsv", "neg_sample_dir": "/elsewhere/negatives"}
    return checkpoint_of("unify_task", content, tmp_path, **elsewhere)


def test_a_pretrained_checkpoint_is_asked_without_the_files_of_its_training(pretrained, images):
    given = {"beam": 2, "max_len_b": 3}
    model = OFA.load(pretrained, device="cpu")
    found = model.ask_columns("caption", images, {}, **given)
    assert [len(str(one)) > 0 for one in found] == [True, True]


@pytest.mark.parametrize("task", [None, "unify_task"])
def test_a_mixture_is_no_task_to_evaluate(task, pretrained, images, tmp_path):
    (tmp_path / "rows.tsv").write_text(f"0\t{as_field(images[0])}\ta cube\n")
    options = {"checkpoint": str(pretrained), "data": str(tmp_path / "rows.tsv"), "device": "cpu"}
    with pytest.raises(UserError, match="found 'unify_task', a mixture.*ofa pretraining score"):
        evaluate(EvaluationOptions(task=task, **options))


def test_the_same_seed_draws_the_same_images(content, images, tmp_path):
    path, given = checkpoint_of("image_gen", content, tmp_path), {"beam": 3}
    best, *_ = evaluated("image_gen", path, images, tmp_path, generation=given)
    drawn = OFA.load(path, device="cpu").draw(
        VALUES["text"], 3, seed_of(7, 0), tokenizer=small_tokenizer(16)
    )
    expected = [best, *best.others]
    assert [image.info["codes"] for image in drawn] == [one.codes for one in expected]
    scores = [one.score for one in expected]  # of a batch of another size: rounded otherwise
    assert [image.info["score"] for image in drawn] == pytest.approx(scores, abs=1e-5)


@pytest.mark.slow
def test_a_row_that_breaks_in_another_process_is_named(content, images, tmp_path):
    path = checkpoint_of("caption", content, tmp_path)
    rows = [f"0\t{as_field(images[0])}\ta cube", "1\tno image\ta cube"]
    (tmp_path / "rows.tsv").write_text("\n".join(rows) + "\n")
    names = {"checkpoint": str(path), "data": str(tmp_path / "rows.tsv"), "device": "cpu"}
    with pytest.raises(UserError, match="rows.tsv:2: "):
        evaluate(EvaluationOptions(**names, selected_cols="0,1,2", jobs=2, batch_size=1))
