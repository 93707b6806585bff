"""The processes of a run: how many on which nodes, and one command in each.

``python -m ofa.trainer.processes ...`` is torchrun with two differences. SIGINT and SIGTERM go to
the processes, which save and end, instead of ending them; and a process that dies is named in one
line. The environment variable OFA_RUN_LOG names a file that also gets what they print.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.folder_lock import LAUNCHER, lock_folder
from ofa.io.jobs import count_cores
from ofa.trainer import console

TORCHRUN = "ofa.trainer.processes"
RUN_LOG = "OFA_RUN_LOG"
AGAIN = "Run the same command again: it resumes from the newest checkpoint"
FREE_PORTS = 20_000  # from 10 000
MIN_WORKERS, MAX_WORKERS = 2, 8  # that read rows for a GPU
SIGNALS = (signal.SIGINT, signal.SIGTERM)
MARKER = "interrupted"  # file in the folder of a run that was asked to stop before its end


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """The processes that share the work."""

    TITLE = "processes"

    jobs: int = option(
        0,
        "processes on this node; 0: one for each GPU, or one",
        also=("--nproc", "--processes"),
        least=0,
        env="NPROC GPUS_PER_NODE",
    )
    nodes: int | None = option(
        None, "nodes of the run (default: SLURM's, or 1)", least=1, env="NNODES WORKER_CNT"
    )
    node_rank: int | None = option(None, "number of this node", least=0, env="NODE_RANK")
    master_addr: str | None = option(None, "address of the first node", env="MASTER_ADDR")
    master_port: int | None = option(
        None, "free port of the first node", least=1, env="MASTER_PORT"
    )
    dry_run: bool = option(False, "print the command and stop", env="DRY_RUN")


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Processes:
    """Args: here: on this node. rank: of this node. address, port: of the first node."""

    here: int
    nodes: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    @classmethod
    def of(cls, options: ProcessOptions, gpus: int) -> "Processes":
        """What the options, SLURM and the settings of upstream's scripts say.

        Raises: UserError if the first node has no address, or this one no number that fits.
        """
        nodes, rank = options.nodes or nodes_of_slurm(), options.node_rank
        if rank is None:
            rank = _rank_of_node(nodes)
        if rank >= nodes:
            raise UserError(
                f"--node-rank (or NODE_RANK, RANK) {rank}: expected the number of this node, below"
                f" --nodes {nodes}; nodes are numbered from 0"
            )
        address = options.master_addr or ("127.0.0.1" if nodes == 1 else _first_node(nodes))
        # all nodes have to choose the same port; on one node two runs must not
        job = int(os.environ.get("SLURM_JOB_ID") or 0)
        port = options.master_port or (10_000 + job % FREE_PORTS if nodes > 1 else free_port())
        return cls(options.jobs or max(gpus, 1), nodes, rank, address, port)

    @property
    def count(self) -> int:
        return self.here * self.nodes

    def command(self, module: str, arguments: Sequence[str]) -> list[str]:
        """What runs ``python -m module`` in each of them."""
        torchrun = [TORCHRUN, "--nnodes", self.nodes, "--node_rank", self.rank]
        torchrun += ["--nproc_per_node", self.here, "--master_addr", self.address]
        torchrun += ["--master_port", self.port, "-m"]
        words = [sys.executable, "-m", *(torchrun if self.count > 1 else ()), module, *arguments]
        return list(map(str, words))


def data_workers(processes: int) -> int:
    """Processes that read rows, for each process with a GPU. Args: processes: on this machine.

    An image takes 5 to 8 ms of a core, and a GPU that trains ofa_base 2 ms.
    """
    return min(max(count_cores() // max(processes, 1), MIN_WORKERS), MAX_WORKERS)


def nodes_of_slurm() -> int:
    """Number of nodes that SLURM gave this job; 1 without SLURM."""
    return int(os.environ.get("SLURM_NNODES") or 1)


def _rank_of_node(nodes: int) -> int:
    """Number of this node where no option gives it: upstream's RANK, which torchrun sets for its
    processes as well, or SLURM's. Raises: UserError if there are several nodes and no number."""
    is_upstreams = "WORKER_CNT" in os.environ and not {"LOCAL_RANK", "WORLD_SIZE"} & {*os.environ}
    for name in ("RANK",) * is_upstreams + ("SLURM_NODEID",):
        if text := os.environ.get(name):
            if not text.isdecimal():
                raise UserError(f"{name}: expected the number of this node, found {text!r}")
            return int(text)
    if nodes > 1:
        raise UserError(
            f"--nodes {nodes}: expects --node-rank (or NODE_RANK), the number of this node from 0"
            f" to {nodes - 1}, found none; give it on each node, or train on one (--nodes 1)"
        )
    return 0


def _first_node(nodes: int) -> str:
    hosts = os.environ.get("SLURM_JOB_NODELIST")
    if hosts and shutil.which("scontrol"):
        command = ["scontrol", "show", "hostnames", hosts]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        if found:
            return found[0]
    raise UserError(
        f"--nodes {nodes}: expects --master-addr (or MASTER_ADDR), the first node's address, found"
        " none; give it and --node-rank"
    )


def become(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path | None = None,
    log_format: str | None = None,
) -> NoReturn:
    """Replace this process by the command, which keeps its number and its locks.

    Args: environment: variables to set. log: file that gets what the command prints; the console
    shows what matters of it. log_format: of fairseq, whose own lines are shown then.
    """
    if log is not None:
        program = [sys.executable, "-m", console.MODULE] if log_format is None else ["tee", "-a"]
        reader = subprocess.Popen(
            [*program, str(log)], stdin=subprocess.PIPE, preexec_fn=_ignore_signals
        )
        assert reader.stdin is not None
        shows_bar = log_format == "tqdm" and sys.stderr.isatty()  # it needs the terminal for itself
        for stream in (1,) if shows_bar else (1, 2):
            os.dup2(reader.stdin.fileno(), stream)
        environment = {**environment, RUN_LOG: str(log)}
        if log_format is None:
            environment[console.CONSOLE] = str(reader.pid)
    for name in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and then by the command
        signal.signal(name, signal.SIG_DFL)
    os.execve(command[0], list(command), {**os.environ, **environment})


def _ignore_signals() -> None:
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)


def status_of(signal_number: int) -> int:
    """The exit status of a command that a signal ended, as shells give it: 130 for Ctrl-C, 143 for
    SIGTERM. ``train && evaluate`` stops there."""
    return 128 + signal_number


def status_of_run(folder: Path) -> int:
    """0; or that of a run which was asked to stop, and says so in its folder."""
    marker = folder / MARKER
    if not marker.exists():
        return 0
    name = marker.read_text(encoding="utf-8").partition(":")[0]
    return status_of(next((number for number in SIGNALS if number.name == name), signal.SIGTERM))


# --- torchrun -------------------------------------------------------------------------------------


def main() -> int:
    """Run torchrun with the arguments of this process. Returns: its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends what waits for other nodes
    # Each attempt to reach the first node would print a C++ stack. torch reads this when it is
    # imported; the ranks do not get it.
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    del os.environ["TORCH_CPP_LOG_LEVEL"]
    api._terminate_process_handler = pass_on  # installed when the processes start
    os.environ[LAUNCHER] = str(os.getpid())
    log = os.environ.get(RUN_LOG)
    asked_to_stop = [*map(status_of, SIGNALS), *(-number for number in SIGNALS)]
    try:
        with lock_folder(Path(log).parent) if log else nullcontext():
            torchrun()
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if Received.number and failure.exitcode in asked_to_stop:
            return status_of(Received.number)
        how = f"ended with status {failure.exitcode}"
        if failure.exitcode < 0:
            how = f"was ended by signal {-failure.exitcode} ({failure.signal_name()})"
            how += ", as the kernel does when memory is short" * (failure.exitcode == -9)
        where = f"above and in {log}" if log else "above"
        process = f"process {failure.pid} on {socket.gethostname()}"
        message = f"rank {rank} ({process}) {how}; what it printed is {where}. {AGAIN}"
        status = max(failure.exitcode, 1)
    except (DistNetworkError, DistStoreError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        message = (
            f"nodes: expected the first one to answer on a free port, found: {reason}. Correct"
            f" --master-addr and --master-port, or look at why the first node ended. {AGAIN}"
        )
        status = 1
    else:
        status = status_of_run(Path(log).parent) if log else 0
        return status_of(Received.number) if status and Received.number else status
    print(f"error: {message}", file=sys.stderr)
    return status


class Received:
    """The first signal that torchrun got, if any. Its processes may know another: Ctrl-C reaches
    them as well, and they are sent SIGTERM."""

    number: int | None = None


def pass_on(signum: int, frame: FrameType | None) -> None:
    """Signal handler: ask the child processes to save and end; then torchrun ends as well."""
    Received.number = Received.number or signum
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for process in map(int, children):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


if __name__ == "__main__":
    status = main()
    console.finish()
    sys.exit(status)
