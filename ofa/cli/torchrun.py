"""``python -m ofa.cli.torchrun ...``: torchrun, which tells in one line which process died, and
how.

Environment: OFA_RUN_LOG names the file that what the processes print goes to as well.
"""

import os
import socket
import sys

AGAIN = "Run the same command again: it resumes from the newest checkpoint"


def main() -> int:
    """Arguments are torchrun's. Returns: its exit status."""
    # Each attempt to reach the first node would print a C++ stack. Read by the import, not by
    # ranks.
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    del os.environ["TORCH_CPP_LOG_LEVEL"]
    try:
        torchrun()
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        how = f"ended with status {failure.exitcode}"
        if failure.exitcode < 0:
            how = f"was ended by signal {-failure.exitcode} ({failure.signal_name()})"
            how += ", as the kernel does when memory is short" * (failure.exitcode == -9)
        log = os.environ.get("OFA_RUN_LOG")
        where = f"above and in {log}" if log else "above"
        process = f"process {failure.pid} on {socket.gethostname()}"
        message = f"rank {rank} ({process}) {how}; what it printed is {where}. {AGAIN}"
        status = max(failure.exitcode, 1)
    except (DistNetworkError, DistStoreError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        message = (
            f"nodes: expected the first one to answer on a free port, found: {reason}. Correct"
            f" MASTER_ADDR and MASTER_PORT, or look at why the first node ended. {AGAIN}"
        )
        status = 1
    else:
        return 0
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
