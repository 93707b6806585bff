"""What an evaluation opens, and what is said of options that nothing reads."""

from types import SimpleNamespace

import pytest
import torch

import ofa
from ofa.cli.main import main
from ofa.errors import UserError
from ofa.inference.evaluate import open_rows, warn_of_another_task, warn_of_images_elsewhere
from ofa.inference.options import EvaluationOptions
from ofa.inference.predictor import choose_device
from ofa.tasks import spec_of


@pytest.mark.parametrize(
    "data, subset, split",
    [
        ("caption_val.tsv", None, "val"),
        ("caption_val.tsv", "mine", "mine"),
        ("rows.tsv", None, "test"),
        ("caption_train.tsv", None, "test"),  # "train" would cut and turn its images
        ("caption_val.tsv", "train", "test"),
    ],
)
def test_rows_are_opened_as_their_subset_but_never_to_train(data, subset, split):
    opened: dict[str, object] = {}
    task = SimpleNamespace(cfg=SimpleNamespace(data=data), datasets=opened)
    rows = SimpleNamespace(prepare_for_device=lambda: None)
    task.load_dataset = lambda name: opened.setdefault(name, rows)
    options = EvaluationOptions(checkpoint="a.pt", data=data, gen_subset=subset)
    open_rows(task, options)
    assert [*opened] == [split]


@pytest.mark.parametrize(
    "data, columns, warned",
    [
        ("refcoco_val.tsv", None, True),
        ("refcoco_val.tsv", "0,4,2", False),
        ("caption_val.tsv", None, False),
        ("rows.tsv", None, False),
    ],
)
def test_a_file_called_as_that_of_another_task_is_named(caplog, data, columns, warned):
    options = EvaluationOptions(checkpoint="a.pt", data=data, selected_cols=columns)
    warn_of_another_task(options, spec_of("caption"))
    found = "called as a file of task 'refcoco', but read as rows of task 'caption' (id, image, "
    assert [found in message for message in caplog.messages] == [True] * warned


@pytest.mark.parametrize(
    "row, warned",
    [
        (["1", "7", "what is it?", "1.0|!+a cat", "", "iVBO" * 30], True),  # of questions
        (["1", "7", "a cat", "", "iVBO" * 30], False),
        (["1", "7", "a cat " * 30, "", ""], False),  # no image at all
    ],
)
def test_an_image_in_another_column_is_named(tmp_path, caplog, row, warned):
    (tmp_path / "rows.tsv").write_text("\t".join(row) + "\n")
    config = SimpleNamespace(data=f"{tmp_path}/rows.tsv", selected_cols=None)
    warn_of_images_elsewhere(SimpleNamespace(cfg=config, spec=spec_of("caption")))
    expected = "task 'caption' expects the image in column 4, which is empty; column 5 has one"
    assert [expected in message for message in caplog.messages] == [True] * warned


def test_a_misspelled_option_to_replace_is_named(caplog):
    ofa.register_fairseq_plugin()
    from ofa.inference.fairseq_loading import check_overrides

    known = {"patch_image_size": "384", "eval_cider": False, "lora_rank": 4, "bpe_dir": "b"}
    assert check_overrides("a.pt", known) == {**known, "patch_image_size": 384}
    assert not caplog.messages
    check_overrides("a.pt", {**known, "fp16": True})
    assert caplog.messages == ["a.pt: 'fp16' is an option of trainings, it changes nothing"]
    for wrong, message in (
        ({"patch_image_sise": 384}, "'patch_image_sise'; did you mean patch_image_size[?]"),
        ({"beam": 3}, "'beam' of generation; give it to the call"),
        (
            {"patch_image_size": "big"},
            "option 'patch_image_size' expects an integer, found \"big\"",
        ),
        ({"num_bins": 9.5}, "option 'num_bins' expects an integer, found 9.5"),
    ):
        with pytest.raises(UserError, match=message):
            check_overrides("a.pt", known | wrong)


def test_what_cannot_be_a_model_is_refused_before_anything_is_read():
    for checkpoint in (None, []):
        with pytest.raises(UserError, match="checkpoint: expects the path of a file, or several"):
            ofa.OFA.load(checkpoint)  # type: ignore[arg-type]
    assert choose_device(torch.device("cpu")) == choose_device("cpu")
    with pytest.raises(UserError, match="device: expected auto, cpu, cuda, .*, found 'gpu'"):
        choose_device("gpu")


def test_rows_without_a_checkpoint_are_not_taken_for_one(capsys):
    assert main(["evaluate", "rows.tsv"]) == 2
    assert "a TSV file (or --images DIR) behind it, found rows.tsv alone" in capsys.readouterr().err


def test_a_model_says_what_it_is():
    checkpoint = SimpleNamespace(path="a.pt", trained={"caption": {}, "vqa_gen": {}}, networks=[])
    model = ofa.OFA(checkpoint, "cpu", None)  # type: ignore[arg-type]
    assert repr(model) == "OFA('a.pt', trained for caption, vqa_gen, on cpu)"
    with pytest.raises(AttributeError, match="no attribute 'captoin'; did you mean caption[?]"):
        model.captoin("a.jpg")
    assert not hasattr(model, "_captoin")
