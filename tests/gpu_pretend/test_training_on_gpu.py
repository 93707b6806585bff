"""What an update of fairseq's trainer waits for on a GPU: once for the losses and once for the log,
beside what fairseq itself asks; and no operator mixes devices."""

from types import SimpleNamespace

import answer_files
import caption_files
import pretraining_files
import pytest
from pretend_training import train

OURS = 2  # whether losses are finite; the figures of the log
FAIRSEQS = 1  # whether the norm of the gradients is finite


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    captions = [caption_files.caption(number) for number in range(12)]
    answers = map(answer_files.vqa_row, range(8))
    return SimpleNamespace(
        captions=caption_files.write_tsv(folder / "captions.tsv", captions),
        caption_vocabulary=caption_files.make_vocabulary(folder / "caption_vocabulary"),
        answers=answer_files.write_rows(folder / "answers.tsv", answers),
        answer_vocabulary=answer_files.make_vocabulary(folder / "answer_vocabulary"),
        pretraining=pretraining_files.make_files(folder / "pretraining"),
    )


def caption_flags(files, *more: str, without: tuple[str, ...] = ("--fp16",)) -> list[str]:
    data, vocabulary = f"{files.captions},{files.captions}", files.caption_vocabulary
    flags = caption_files.caption_flags(data, vocabulary, "--update-freq=1", *more)
    return [flag for flag in flags if not flag.startswith(without)]


def answer_flags(files, *more: str) -> list[str]:
    data, vocabulary = f"{files.answers},{files.answers}", files.answer_vocabulary
    return answer_files.flags("vqa_gen", data, vocabulary, *more)


def pretraining_flags(files) -> list[str]:
    flags = pretraining_files.pretraining_flags(files.pretraining)
    return [flag for flag in flags if not flag.startswith("--fp16")]


RUNS = {
    "captions": caption_flags,
    "two batches of captions": lambda files: caption_flags(files, "--update-freq=2"),
    "R-Drop": lambda files: caption_flags(files, "--use-rdrop"),
    "worst tokens dropped": lambda files: caption_flags(files, "--drop-worst-after=0"),
    "accuracy": lambda files: caption_flags(files, "--report-accuracy", "--ignore-eos"),
    "LoRA": lambda files: caption_flags(files, "--lora-rank=2", "--bf16"),
    "answers": answer_flags,
    "pretraining": pretraining_flags,
}


@pytest.mark.parametrize("run", RUNS)
def test_an_update_waits_for_the_losses_and_the_log_alone(monkeypatch, tmp_path, files, run):
    update, _ = train(monkeypatch, tmp_path, RUNS[run](files))
    assert not update.mixed
    assert sum(update.own_waits.values()) <= OURS, update.own_waits
    assert sum(update.waits.values()) <= OURS + FAIRSEQS, update.waits


def test_a_loss_scaler_of_fairseq_adds_its_own_waits_alone(monkeypatch, tmp_path, files):
    update, _ = train(monkeypatch, tmp_path, caption_flags(files, without=()))
    assert not update.mixed
    assert sum(update.own_waits.values()) <= OURS, update.own_waits


def test_a_batch_of_a_validation_by_loss_waits_twice(monkeypatch, tmp_path, files):
    _, batch = train(monkeypatch, tmp_path, pretraining_flags(files), updates=1, validates=True)
    assert not batch.mixed
    assert sum(batch.waits.values()) <= OURS, batch.waits
