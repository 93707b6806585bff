"""Two ranks pretrain on any choice of files what one process trains; a step may use other
parameters than the one before, and one rank others than the other."""

import copy
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from pretraining_files import make_files, pretraining_flags
from training_runs import SERVER, SMALL, start_server

pytestmark = pytest.mark.slow  # processes of their own

FILES = ("pairs", "text", "image", "detection")
CHOICES = [chosen for count in range(1, 5) for chosen in itertools.combinations(FILES, count)]
FIGURES = ("loss", "gnorm", "sample_size", "nsentences")
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


def updates_of(cfg, ranks: int) -> list[list[float]]:
    """Figures of the first updates. A process alone takes the batches of two."""
    from fairseq import tasks
    from fairseq.data import iterators
    from fairseq.logging import metrics

    from ofa.trainer.fairseq_trainer import OFATrainer

    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    trainer = OFATrainer(cfg, task, model, criterion)
    reader = trainer.get_train_iterator(epoch=1).next_epoch_itr(shuffle=True)
    found = []
    for samples in itertools.islice(iterators.GroupedIterator(reader, 3 - ranks), UPDATES):
        with metrics.aggregate(new_root=True) as figures:
            trainer.train_step(samples)
        values = figures.get_smoothed_values()
        found.append([float(values[name]) for name in FIGURES])
    return found


def run(files: SimpleNamespace, ranks: int, rank: int, meeting: str, out: str) -> None:
    """What a process does: a short training on each choice of files."""
    import torch
    from fairseq_setup import configuration

    torch.set_num_threads(1)
    cfg = configuration(pretraining_flags(files, *EXACT))
    cfg.distributed_training.distributed_world_size = ranks
    cfg.distributed_training.distributed_rank = rank
    if ranks > 1:
        how = {"init_method": f"file://{meeting}", "world_size": ranks, "rank": rank}
        torch.distributed.init_process_group("gloo", **how)
    found = {}
    for chosen in CHOICES:
        torch.manual_seed(1)
        found["+".join(chosen)] = updates_of(with_files(cfg, chosen), ranks)
    Path(out).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """Ranks -> choice of files -> figures of each update."""
    folder = tmp_path_factory.mktemp("ranks")
    files = make_files(folder / "files")
    start_server()
    found = {}
    for ranks in (1, 2):
        paths = [folder / f"{ranks}_{rank}.json" for rank in range(ranks)]
        processes = [
            SERVER.Process(
                target=run, args=(files, ranks, rank, str(folder / "meeting"), str(path))
            )
            for rank, path in enumerate(paths)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
        assert [process.exitcode for process in processes] == [0] * ranks
        found[ranks] = json.loads(paths[0].read_text())
    return found


@pytest.mark.parametrize("chosen", map("+".join, CHOICES))
def test_two_ranks_make_the_updates_of_one_process(curves, chosen):
    one, two = curves[1][chosen], curves[2][chosen]
    assert 0 < len(one) == len(two)
    for alone, shared in zip(one, two):
        assert alone == pytest.approx(shared, rel=1e-4)
