"""Two ranks pretrain on any choice of files what one process trains; a step may use other
parameters than the one before, and one rank others than the other."""

import copy
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from pretraining_files import make_files, pretraining_flags
from ranks import on_rank, run_ranks, trainer_of
from training_runs import SMALL

pytestmark = pytest.mark.slow  # processes of their own

FILES = ("pairs", "text", "image", "detection")
CHOICES = [chosen for count in range(1, 5) for chosen in itertools.combinations(FILES, count)]
FIGURES = ("loss", "gnorm", "sample_size", "nsentences")
# with weights and gradients divided as well: a step may gather other layers on each rank
DIVIDED = (("pairs", "text"), ("pairs", "image"), ("image", "detection"), FILES)
UPDATES = 2
# Nothing random in a step, and nothing that depends on how rows are divided into batches.
EXACT = (
    "--dropout=0",
    "--encoder-drop-path-rate=0",
    "--decoder-drop-path-rate=0",
    "--freeze-resnet",
    "--sample-patch-num=0",
    "--clip-norm=0",
    "--find-unused-parameters",
    "--cpu",
    *SMALL,
)


def with_files(cfg, chosen: tuple[str, ...]):
    """The configuration of all files without those that are not chosen."""
    cfg = copy.deepcopy(cfg)
    if "pairs" not in chosen:
        cfg.task.data, cfg.task.neg_sample_dir = "none", None
    for name in set(FILES[1:]) - {*chosen}:
        cfg.task[f"{name}_data"] = None
    return cfg


def updates_of(trainer, ranks: int) -> list[list[float]]:
    """Figures of the first updates. A process alone takes the batches of two."""
    from fairseq.data import iterators
    from fairseq.logging import metrics

    reader = trainer.get_train_iterator(epoch=1).next_epoch_itr(shuffle=True)
    found = []
    for samples in itertools.islice(iterators.GroupedIterator(reader, 3 - ranks), UPDATES):
        with metrics.aggregate(new_root=True) as figures:
            trainer.train_step(samples)
        values = figures.get_smoothed_values()
        found.append([float(values[name]) for name in FIGURES])
    return found


def work(files: SimpleNamespace, ranks: int, rank: int, folder: Path) -> dict:
    """What a process does: a short training on each choice of files. Returns: their figures."""
    from fairseq_setup import configuration

    from ofa.trainer.fairseq_compat import settle_processes

    cfg = on_rank(configuration(pretraining_flags(files, *EXACT)), ranks, rank)
    found = {
        "+".join(chosen): updates_of(trainer_of(with_files(cfg, chosen)), ranks)
        for chosen in CHOICES
    }
    cfg.distributed_training.ddp_backend = "fully_sharded"
    settle_processes(cfg)
    for chosen in DIVIDED if ranks > 1 else ():
        found["divided " + "+".join(chosen)] = updates_of(
            trainer_of(with_files(cfg, chosen)), ranks
        )
    return found


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """Ranks -> choice of files -> figures of each update."""
    folder = tmp_path_factory.mktemp("ranks")
    files = make_files(folder / "files")
    return {ranks: run_ranks(work, files, ranks, folder) for ranks in (1, 2)}


@pytest.mark.parametrize("chosen", map("+".join, CHOICES))
def test_two_ranks_make_the_updates_of_one_process(curves, chosen):
    one, two = curves[1][chosen], curves[2][chosen]
    assert 0 < len(one) == len(two)
    for alone, shared in zip(one, two):
        assert alone == pytest.approx(shared, rel=1e-4)


@pytest.mark.parametrize("chosen", map("+".join, DIVIDED))
def test_two_ranks_with_parts_of_the_weights_make_the_same_updates(curves, chosen):
    for whole, divided in zip(curves[2][chosen], curves[2][f"divided {chosen}"], strict=True):
        assert divided == pytest.approx(whole, rel=1e-5)
