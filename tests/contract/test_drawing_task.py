"""Text to image through fairseq's own doors: upstream flags in, batches, codes, images and
figures out."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from caption_files import make_image
from drawing_files import (
    CODES,
    SIDE,
    Colors,
    ColorScorer,
    drawing_flags,
    make_drawing_vocabulary,
    write_drawings,
)
from fairseq_setup import configuration, task_with_data
from test_caption_task import validate

from ofa.errors import UserError
from ofa.inference.evaluate import EvaluationOptions, image_writer_of

ROWS = 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawing")
    return SimpleNamespace(
        folder=folder,
        vocabulary=make_drawing_vocabulary(folder / "vocabulary"),
        train=write_drawings(folder / "train.tsv", range(ROWS)),
        valid=write_drawings(folder / "valid.tsv", range(ROWS)),
    )


def set_up(files, *more: str):
    cfg = configuration(drawing_flags(f"{files.train},{files.valid}", files.vocabulary, *more))
    return cfg, task_with_data(cfg)


@pytest.fixture(scope="module")
def ready(files):
    return set_up(files)


@pytest.fixture(scope="module")
def network(ready):
    cfg, task = ready
    torch.manual_seed(3)
    return task.build_model(cfg.model).eval(), task.build_criterion(cfg.criterion)


def batch_of(task, rows) -> dict:
    return task.datasets["valid"].collater([task.datasets["valid"][row] for row in rows])


def test_upstream_flags_build_task_model_and_criterion(ready, network):
    task, (model, criterion) = ready[1], network
    batch = batch_of(task, range(3))
    loss, sample_size, _ = criterion(model, batch, update_num=0)
    assert torch.isfinite(loss) and sample_size == batch["ntokens"] == 3 * (CODES + 1)
    assert (
        batch["net_input"]["code_masks"].tolist() == [True] * 3
        and "patch_images" not in batch["net_input"]
    )


def test_the_default_code_image_size_is_the_task_s(files):
    flags = [
        flag
        for flag in drawing_flags(f"{files.train},{files.valid}", files.vocabulary)
        if not flag.startswith("--code-image-size")
    ]
    cfg = configuration([*flags, "--image-bucket-size=42"])
    assert cfg.task.code_image_size == 256 and cfg.model.code_image_size == 256


def test_a_generator_draws_the_codes_of_one_image_without_files_of_weights(ready, network):
    task, (model, _) = ready[1], network
    generator = task.build_generator([model], Namespace(beam=5, sampling_topk=2, temperature=1.0))
    found = generator.generate([model], batch_of(task, range(2)))
    codes = task.vocabulary.codes
    for best in found:
        assert len(best) == 5
        for one in best:
            *drawn, end = one["tokens"].tolist()
            assert (
                len(drawn) == CODES
                and all(token in codes for token in drawn)
                and end == task.vocabulary.eos
            )


def samples(task, model, rows, seeds=None):
    batch = batch_of(task, rows)
    if seeds is not None:
        batch["seeds"] = seeds
    found = task.predict(batch, [model], task.sequence_generator, task.decoding, 99)
    return [[(one.codes, round(one.score, 4)) for one in (best, *best.others)] for best in found]


def test_what_is_drawn_depends_on_the_row_alone(ready, network):
    task, (model, _) = ready[1], network
    whole = samples(task, model, range(ROWS))
    assert whole == [samples(task, model, [row])[0] for row in range(ROWS)]
    assert (
        whole[0]
        != samples(task, model, [0], seeds=[5])[0]
        != samples(task, model, [0], seeds=[6])[0]
    )
    assert len({codes for codes, _ in whole[0]}) > 1


def test_sampling_times_multiplies_the_images(files, network):
    task = set_up(files, "--sampling-times=3")[1]
    task.build_model(set_up(files)[0].model)
    found = samples(task, network[0], [0])
    assert len(found[0]) == 12 and len(set(found[0])) > 4


@pytest.fixture
def drawing(files, network):
    """A task with a tokenizer and a scorer that were put in by hand."""
    cfg, task = set_up(files)
    task.image_tokenizer, task.image_text_scorer = Colors(), ColorScorer()
    task.build_model(cfg.model)
    return task


def test_the_image_that_fits_its_caption_best_comes_first(drawing, network):
    found = drawing.predict(
        batch_of(drawing, range(4)), [network[0]], drawing.sequence_generator, drawing.decoding, 99
    )
    for row, best in enumerate(found):
        fits = [one.clip_score for one in (best, *best.others)]
        assert len(fits) == 4 and fits == sorted(fits, reverse=True)
        assert (
            best.image.size == (SIDE, SIDE) and best.clip_score == best.codes.count(row + 1) / CODES
        )


def test_the_score_of_a_validation_does_not_depend_on_ranks_or_batch_size(drawing, network):
    model, criterion = network
    assert "score" in drawing.metric_names()
    whole = validate(drawing, model, criterion, 1, ROWS)["score"]
    assert 0 < whole <= 1
    for ranks, size in ((1, 2), (2, 2)):
        assert validate(drawing, model, criterion, ranks, size)["score"] == whole


def test_images_are_compared_with_the_true_ones_where_that_is_wanted(files, network):
    cfg, task = set_up(files, "--eval-clip-method=ii_sim")
    task.image_tokenizer, task.image_text_scorer = Colors(), ColorScorer()
    task.build_model(cfg.model)
    best = task.predict(
        batch_of(task, [2]), [network[0]], task.sequence_generator, task.decoding, 1
    )[0]
    assert best.clip_score == best.codes.count(3) / CODES


def test_rows_of_four_columns_have_codes_and_the_image_itself(files, network):
    """``id, image, text, code``: the image goes along as it stands, and is what drawn ones are
    compared with."""
    blue = make_image("blue", (SIDE, SIDE))
    path = files.folder / "four.tsv"
    path.write_text(f"d0\t{blue}\ta red square\t1 1 1 1\n")
    cfg = configuration(
        drawing_flags(
            f"{path},{path}",
            files.vocabulary,
            "--selected-cols=0,1,2,3",
            "--eval-clip-method=ii_sim",
        )
    )
    task = task_with_data(cfg)
    three = set_up(files)[1].datasets["train"][0]
    four = task.datasets["train"][0]
    assert (
        four["source"].tolist() == three["source"].tolist()
        and four["target"].tolist() == three["target"].tolist()
    )
    batch = batch_of(task, [0])
    assert batch["code_images"].tolist() == [blue.encode()]
    task.image_tokenizer, task.image_text_scorer = Colors(), ColorScorer()
    task.build_model(cfg.model)
    best = task.predict(batch, [network[0]], task.sequence_generator, task.decoding, 1)[0]
    assert best.clip_score == best.codes.count(3) / CODES  # blue, although its codes say red


def test_without_files_of_weights_validation_reports_the_loss_alone(ready, network):
    task, (model, criterion) = ready[1], network
    assert "score" not in task.metric_names()
    assert "score" not in validate(task, model, criterion, 1, ROWS)


def mistakes(files):
    short = files.folder / "short.tsv"
    short.write_text("d0\t1 2 3\ta red square\n")
    outside = files.folder / "outside.tsv"
    outside.write_text("d0\t1 2 3 5\ta red square\n")
    none = write_drawings(files.folder / "none.tsv", range(2), codes=False)
    return {"short": (short, []), "outside": (outside, []), "none": (none, ["--selected-cols=0,1"])}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "short.tsv:1: expects 4 image codes .*found 3.*--code-image-size"),
        ("outside", "outside.tsv:1: expects image codes from 0 to 4, found 5"),
        ("none", "none.tsv:1: .* expects rows with 4 codes to learn, found none"),
    ],
)
def test_a_row_that_cannot_be_learned_is_one_message(files, name, message):
    path, more = mistakes(files)[name]
    cfg = configuration(drawing_flags(f"{path},{path}", files.vocabulary, *more))
    task = task_with_data(cfg)
    with pytest.raises(UserError, match=message):
        task.datasets["train"][0]


def test_a_tokenizer_of_another_codebook_is_one_message(drawing):
    drawing.image_tokenizer.num_codes = 8
    with pytest.raises(UserError, match="expects a codebook of 5 codes.*found 8"):
        drawing.images([[0, 1, 2, 3]])


def test_a_tokenizer_of_other_pixels_per_code_is_one_message_wherever_images_are_made(
    drawing, network, monkeypatch
):
    monkeypatch.setattr(drawing.image_tokenizer, "factor", 16, raising=False)
    batch = batch_of(drawing, [0])
    answer = torch.tensor([drawing.vocabulary.codes.start] * CODES)
    for use in (
        lambda: drawing.begin_epoch(1, network[0]),  # training, before its first update
        lambda: drawing.valid_step(batch, *network),
        lambda: drawing.rewards_of_fit([answer], [0], batch),
        lambda: image_writer_of(drawing, EvaluationOptions(checkpoint="")),
        drawing.check_tokenizer,  # ofa draw
    ):
        with pytest.raises(
            UserError,
            match=(
                "--image-tokenizer .*: expects 8 x 8 pixels per code, as the model has, found 16"
                " x 16"
            ),
        ):
            use()


def test_images_without_a_tokenizer_are_one_message(ready):
    with pytest.raises(UserError, match="expected --image-tokenizer, in Python tokenizer="):
        ready[1].images([[0, 1, 2, 3]])


def test_a_missing_file_is_found_before_the_first_epoch(files, network):
    task = set_up(
        files, "--clip-model-path=/nowhere/ViT-B-16.pt", "--vqgan-model-path=/nowhere/last.ckpt"
    )[1]
    with pytest.raises(
        UserError,
        match="--vqgan-model-path: expects a file or folder, found nothing at /nowhere/last.ckpt",
    ):
        task.begin_epoch(1, network[0])


def test_clip_weights_that_are_a_program_are_refused_before_the_first_epoch(files, network):
    torch.jit.script(torch.nn.ReLU()).save(str(files.folder / "ViT-B-16.pt"))
    task = set_up(files, f"--clip-model-path={files.folder / 'ViT-B-16.pt'}")[1]
    with pytest.raises(UserError, match="--clip-model-path .*a TorchScript program, .*python -c"):
        task.begin_epoch(1, network[0])
