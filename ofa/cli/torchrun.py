"""``python -m ofa.cli.torchrun ...``: torchrun, which tells in one line which process of a run died, and how."""

import socket
import sys
from pathlib import Path


def main() -> int:
    """Arguments are torchrun's. Returns: its exit status."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun()
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        print(f"error: {in_words(rank, failure)}", file=sys.stderr)
        return max(failure.exitcode, 1)
    return 0


def in_words(rank: int, failure) -> str:
    """Args: failure: torch's ``ProcessFailure``."""
    how = f"ended with status {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"was ended by signal {-failure.exitcode} ({failure.signal_name()})"
        how += ", as the kernel does when memory is short" * (failure.exitcode == -9)
    folder = next((word.removeprefix("--save-dir=") for word in sys.argv if word.startswith("--save-dir=")), None)
    log = f" and in {folder}/train.log" if folder and (Path(folder) / "train.log").exists() else ""
    return (
        f"rank {rank} (process {failure.pid} on {socket.gethostname()}) {how}; what it printed is above{log}. Run the same "
        "command again: it resumes from the newest checkpoint"
    )


if __name__ == "__main__":
    sys.exit(main())
