"""``--zero-sharding os`` on two ranks trains what data parallelism alone trains, and its
checkpoints resume exactly, on any number of ranks."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ranks import configuration_on, run_ranks, trainer_of
from training_runs import flags, make_files

from ofa.io.safe_load import load_checkpoint

pytestmark = pytest.mark.slow  # processes of their own

UPDATES = 4
PRECISIONS = {
    "fp32": (),
    "bf16": ("--bf16",),
    "memory-efficient-fp16": ("--memory-efficient-fp16", "--fp16-init-scale=4"),
}
EXACT = (
    "--dropout=0",
    "--encoder-drop-path-rate=0",
    "--decoder-drop-path-rate=0",
    "--freeze-resnet",
    "--lr=1e-2",
    "--max-epoch=9",
)


def losses_of(trainer, first: int, last: int, ranks: int) -> list[float]:
    """Of some updates. Args: ranks: a process alone takes the batches of two."""
    from fairseq.data import iterators
    from fairseq.logging import metrics

    reader = trainer.get_train_iterator(epoch=1).next_epoch_itr(shuffle=True)
    groups = itertools.cycle(list(iterators.GroupedIterator(reader, 3 - ranks))[:2])
    found = []
    for samples in itertools.islice(groups, first, last):
        with metrics.aggregate(new_root=True) as figures:
            trainer.train_step(samples)
        found.append(float(figures.get_smoothed_values()["loss"]))
    return found


def save(trainer, path: Path) -> None:
    trainer.consolidate_optimizer()
    position = {"epoch": 1, "iterations_in_epoch": 2, "shuffle": True, "version": 2}
    trainer.save_checkpoint(str(path), {"train_iterator": position})


def work(files: SimpleNamespace, ranks: int, rank: int, folder: Path) -> dict:
    """What a process does. Returns: losses by name."""
    found = {}
    for name, precision in PRECISIONS.items():
        for sharding in ("none", "os"):
            words = flags(files, folder, *EXACT, *precision, f"--zero-sharding={sharding}")
            cfg, path = configuration_on(words, ranks, rank), folder / f"{name}_{sharding}.pt"
            if ranks == 2:
                trainer = trainer_of(cfg)
                found[f"{name} {sharding}"] = losses_of(trainer, 0, UPDATES, ranks)
                halfway = trainer_of(cfg)
                losses_of(halfway, 0, 2, ranks)
                save(halfway, path)
                torch.distributed.barrier()
            resumed = trainer_of(cfg)
            resumed.load_checkpoint(str(path))
            found[f"{name} {sharding} resumed"] = losses_of(resumed, 2, UPDATES, ranks)
    return {**found, "minutes": minutes_of_groups(2)}


def minutes_of_groups(wanted: float) -> list[float]:
    """How long processes wait for each other with ``--distributed-timeout``, in every group."""
    from fairseq.distributed import utils as distributed_utils

    from ofa.trainer.fairseq_distributed import wait_at_most

    wait_at_most(wanted)
    if not torch.distributed.is_initialized():
        return []
    groups = [torch.distributed.group.WORLD, distributed_utils.get_data_parallel_group()]
    backends = [group._get_backend(torch.device("cpu")) for group in groups]
    return [backend.options._timeout.total_seconds() / 60 for backend in backends]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def found(folder):
    """Ranks -> losses by name: of two ranks, and of one that resumes what they have saved."""
    files = make_files(folder)
    return {ranks: run_ranks(work, files, ranks, folder) for ranks in (2, 1)}


@pytest.mark.parametrize("name", PRECISIONS)
def test_sharded_moments_train_what_whole_ones_do(found, name):
    assert len(set(found[2][f"{name} none"])) == UPDATES
    assert found[2][f"{name} os"] == pytest.approx(found[2][f"{name} none"], rel=1e-5)


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_sharded_run_resumes_exactly(found, name):
    assert found[2][f"{name} os resumed"] == found[2][f"{name} os"][2:]


@pytest.mark.parametrize("name", PRECISIONS)
def test_one_process_resumes_what_two_have_sharded(found, name):
    expected = found[1][f"{name} none resumed"]
    assert found[1][f"{name} os resumed"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_checkpoint_is_that_of_whole_moments(found, folder, name):
    whole, sharded = (load_checkpoint(folder / f"{name}_{kind}.pt") for kind in ("none", "os"))
    one, other = whole["last_optimizer_state"], sharded["last_optimizer_state"]
    assert one["param_groups"] == other["param_groups"]
    assert list(one["state"]) == list(other["state"])
    for index, state in one["state"].items():
        assert state.keys() == other["state"][index].keys()
        torch.testing.assert_close(other["state"][index], state, rtol=1e-4, atol=1e-8)
    sizes = [(folder / f"{name}_{kind}.pt").stat().st_size for kind in ("none", "os")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


def test_the_time_to_wait_for_another_process_holds_for_every_group(found):
    assert found[2]["minutes"] == [2, 2] and found[1]["minutes"] == []
