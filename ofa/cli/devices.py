"""What ``run_scripts/`` ask about GPUs, one answer on stdout: ``python -m ofa.cli.devices
count|check|torch TABLE``.

count         number of GPUs by nvidia-smi, without importing torch
check         number of GPUs by torch; status 2 and one line where this torch cannot use them
torch TABLE   torch, torchvision and the reason, separated by tabs: the build that setup.sh installs
"""

import os
import sys

from ofa import devices
from ofa.errors import UserError


def answer(question: str, *arguments: str) -> str:
    """Answer to one of the questions above. Raises: UserError."""
    if question in ("count", "check"):
        count, note = (
            devices.count_without_torch() if question == "count" else devices.usable_gpus()
        )
        if note:
            print(f"note: {note}; using the CPU", file=sys.stderr)
        return str(count)
    wanted = os.environ.get("OFA_TORCH", "")
    gpus, note = ([], "") if wanted else devices.described_gpus()
    build, reason = devices.choose_build(devices.read_builds(arguments[0]), gpus, wanted, note)
    return f"{build.torch}\t{build.torchvision}\tfor CUDA {build.cuda}: {reason}"


def main() -> int:
    try:
        print(answer(*sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
