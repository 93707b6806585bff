"""What an evaluation opens, and what is said of options that nothing reads."""

from types import SimpleNamespace

import pytest

import ofa
from ofa.cli.main import main
from ofa.errors import UserError
from ofa.inference.evaluate import open_rows, warn_of_another_task
from ofa.inference.options import EvaluationOptions
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


def test_a_misspelled_option_to_replace_is_named(caplog):
    ofa.register_fairseq_plugin()
    from ofa.inference.fairseq_loading import check_overrides

    known = ["patch_image_size", "eval_cider", "lora_rank", "arch", "bpe_dir"]
    check_overrides("a.pt", known)
    assert not caplog.messages
    check_overrides("a.pt", [*known, "fp16"])
    assert caplog.messages == ["a.pt: 'fp16' is an option of trainings, it changes nothing"]
    with pytest.raises(UserError, match="'patch_image_sise'; did you mean patch_image_size[?]"):
        check_overrides("a.pt", [*known, "patch_image_sise"])
    with pytest.raises(UserError, match=r"'beam' of generation; give it to the call"):
        check_overrides("a.pt", [*known, "beam"])


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
