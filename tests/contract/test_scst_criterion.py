"""CIDEr optimization through fairseq's own doors: task, generator, model and criterion of one
command line."""

import logging
from types import SimpleNamespace

import pytest
import torch
from caption_files import caption, caption_flags, make_vocabulary, write_tsv

from ofa.errors import UserError

ROWS, SAMPLES = 4, 3
STAGE2 = (
    "--criterion=scst_reward_criterion",
    "--scst",
    "--selected-cols=0,4,2",
    "--dropout=0.0",
    "--encoder-drop-path-rate=0.0",
    "--decoder-drop-path-rate=0.0",
    f'--scst-args={{"beam":{SAMPLES},"max_len_b":6,"no_repeat_ngram_size":3}}',
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from ofa.cli.main import main

    folder = tmp_path_factory.mktemp("scst")
    train = write_tsv(
        folder / "train.tsv", [caption(number) for number in range(ROWS)], joined=True
    )
    assert main(["cider-df", "build", "--tsv", str(train), "--out", str(folder / "words.p")]) == 0
    return SimpleNamespace(
        folder=folder,
        train=train,
        words=folder / "words.p",
        vocabulary=make_vocabulary(folder / "vocabulary"),
    )


def set_up(files, *more: str):
    """Task, model in training mode, criterion and a batch of all rows."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import ofa

    ofa.register_fairseq_plugin()
    given = [f"--scst-cider-cached-tokens={files.words}", *STAGE2, *more]
    flags = [
        flag
        for flag in caption_flags(str(files.train), files.vocabulary, *given)
        if not flag.startswith("--drop-worst") and not flag.startswith("--label-smoothing")
    ]
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), flags)
    )
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    torch.manual_seed(1)
    model = task.build_model(cfg.model).train()
    criterion = task.build_criterion(cfg.criterion)
    batch = task.datasets["train"].collater([task.datasets["train"][row] for row in range(ROWS)])
    return SimpleNamespace(task=task, model=model, criterion=criterion, batch=batch)


def speak(run, *texts: str) -> None:
    """Let the generator say these captions for every image."""
    tokens = [
        torch.tensor([*run.task.vocabulary.ids(run.task.bpe.encode(text)), 2]) for text in texts
    ]
    run.task.scst_generator = SimpleNamespace(
        generate=lambda models, sample: (
            [[{"tokens": row, "score": torch.tensor(0.0)} for row in tokens]] * ROWS
        )
    )


def count_images(model) -> list[int]:
    images: list[int] = []
    model.encoder.register_forward_hook(
        lambda module, inputs, output: images.append(len(output.states))
    )
    return images


def probability(run, text: str) -> float:
    """Of a caption for the first image, as the logarithm."""
    tokens = torch.tensor([run.task.vocabulary.ids(run.task.bpe.encode(text)) + [2]])
    inputs = {name: value[:1] for name, value in run.batch["net_input"].items()}
    inputs["prev_output_tokens"] = tokens.roll(1).index_fill(1, torch.tensor([0]), 0)
    with torch.no_grad():
        return float(run.model(**inputs)[0].log_softmax(-1)[0].gather(1, tokens.T).sum())


@pytest.mark.parametrize(
    "flags",
    [(), ("--scst-baseline=greedy",), ('--scst-args={"beam":3,"sampling":true,"max_len_b":6}',)],
    ids=["beams", "greedy baseline", "multinomial"],
)
def test_an_image_is_encoded_once_to_sample_and_once_to_learn(files, flags):
    run = set_up(files, *flags)
    images = count_images(run.model)
    loss, sample_size, log = run.criterion(run.model, run.batch, update_num=0)
    loss.backward()
    assert images == [ROWS, ROWS]
    assert (
        loss.isfinite()
        and log["nsentences"] == ROWS * SAMPLES
        and sample_size == log["ntokens"] > 0
    )
    assert run.model.training


def test_samples_above_the_baseline_become_more_probable(files):
    run = set_up(files)
    good, bad = " " + caption(0), " A white cube by night"
    speak(run, good, bad)
    before = probability(run, good) - probability(run, bad)
    optimizer = torch.optim.SGD([p for p in run.model.parameters() if p.requires_grad], lr=1e-3)
    loss, size, _ = run.criterion(run.model, run.batch)
    (loss / size).backward()
    optimizer.step()
    assert probability(run, good) - probability(run, bad) > before


def test_images_with_fewer_samples_count_only_what_they_have(files):
    run = set_up(files)
    speak(run, " A red cube", " There is a green cube")
    every = run.task.scst_generator.generate(None, None)
    run.task.scst_generator.generate = lambda models, sample: [every[0][:1], *every[1:]]
    loss, size, log = run.criterion(run.model, run.batch)
    lengths = [len(hypothesis["tokens"]) for hypothesis in every[0]]
    assert (
        loss.isfinite()
        and log["nsentences"] == 2 * ROWS - 1
        and size == lengths[0] + (ROWS - 1) * sum(lengths)
    )


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_follows_freeze_resnet_alone_and_the_log_says_so(files, frozen, caplog):
    run = set_up(files, *["--freeze-resnet"] * frozen)
    statistics = {
        name: value.clone() for name, value in run.model.state_dict().items() if "running_" in name
    }
    with caplog.at_level(logging.INFO, logger="ofa.criterions.fairseq_scst"):
        for _ in range(2):
            run.criterion(run.model, run.batch)[0].backward()
    moved = [
        name
        for name, value in run.model.state_dict().items()
        if "running_" in name and not value.equal(statistics[name])
    ]
    assert len(statistics) > 5 and bool(moved) != frozen
    said = [record.message for record in caplog.records if record.message.startswith("batch norm")]
    assert (
        len(said) == 1
        and ("no statistics move" if frozen else "--freeze-resnet keeps them") in said[0]
    )


def test_divergence_from_stage_1_is_zero_at_its_weights_and_no_parameter(files):
    path = files.folder / "stage1.pt"
    torch.save({"model": set_up(files, "--freeze-resnet").model.state_dict()}, path)
    run = set_up(files, "--freeze-resnet", "--scst-kl-weight=0.5", f"--scst-kl-model={path}")
    plain, _, log = run.criterion(run.model, run.batch)
    assert abs(float(log["kl"])) < 1e-4 and not list(run.criterion.parameters())
    with torch.no_grad():
        for parameter in run.model.decoder.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    speak(run, " A red cube", " A green cube")
    loss, _, log = run.criterion(run.model, run.batch)
    run.criterion.cfg.scst_kl_weight = 0.0
    assert log["kl"] > 0.1 and loss.item() == pytest.approx(
        run.criterion(run.model, run.batch)[0].item() + 0.5 * float(log["kl"])
    )


def test_validation_scores_samples_and_keeps_the_mode(files):
    run = set_up(files)
    run.model.eval()
    with torch.no_grad():
        _, _, log = run.task.valid_step(run.batch, run.model, run.criterion)
    assert not run.model.training and log["score"] >= 0 and log["_cider_cnt"] == ROWS
    assert "score" in run.task.metric_names()


def test_figures_are_averaged_over_samples_of_all_processes(files):
    from fairseq.logging import metrics

    criterion = set_up(files).criterion
    logs = [
        {"loss": 6.0, "score": 8.0, "ntokens": 20, "nsentences": 4, "sample_size": 20},
        {"loss": 2.0, "score": 1.0, "ntokens": 12, "nsentences": 5, "sample_size": 12},
    ]
    with metrics.aggregate(new_root=True) as seen:
        criterion.reduce_metrics(logs)
    assert seen.get_smoothed_values() == {
        "loss": 0.25,
        "score": 1.0,
        "ntokens": 32,
        "nsentences": 9,
        "sample_size": 32,
    }


def test_rewards_that_stay_zero_end_the_training_with_the_reason(files):
    run = set_up(files, "--scst-patience=3")
    speak(run, " what describe", " image describe")
    for _ in range(2):
        assert run.criterion(run.model, run.batch)[0] == 0
    run.model.eval()
    run.criterion(run.model, run.batch)
    run.model.train()
    with pytest.raises(
        UserError, match="3 batches in a row earned no reward.*share no word with their references"
    ):
        run.criterion(run.model, run.batch)


@pytest.mark.parametrize(
    "flags, message",
    [
        (['--scst-args={"beam":1}'], "at least two samples per image"),
        (["--scst-kl-weight=0.1"], "--scst-kl-model"),
        (["--scst-cider-cached-tokens=nowhere.p"], "nowhere.p.*ofa cider-df build"),
    ],
)
def test_a_wrong_flag_is_answered_by_one_sentence(files, flags, message):
    with pytest.raises(UserError, match=message):
        run = set_up(files, *flags)
        run.criterion(run.model, run.batch)


def test_samples_that_a_broken_network_lacks_are_no_matter_of_the_beam(files):
    run = set_up(files)
    run.model.encoder.layers[0].fc2.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="found one; a warning above says why"):
        run.criterion(run.model, run.batch)


def test_without_scst_there_is_nothing_to_sample_with(files):
    run = set_up(files)
    run.task.scst_generator = None
    with pytest.raises(UserError, match="expected --scst"):
        run.criterion(run.model, run.batch)
