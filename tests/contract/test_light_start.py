"""What a person types starts at once: heavy libraries come with the work, not with the command."""

import subprocess
import sys

import pytest


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_and_parsing_commands_loads_no_heavy_library():
    run(
        "import sys, ofa\n"
        "from ofa.cli.main import build_parser\n"
        "build_parser()\n"
        "import ofa.submit.uploads, ofa.inference.requests\n"
        "from ofa import train\n"
        "heavy = {'torch', 'fairseq', 'torchvision', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "evaluate",
        "draw",
        "predict",
        "demo",
        "report",
        "doctor",
        "prepare csv",
        "tokenizer train",
    ],
)
def test_the_help_of_a_command_imports_no_torch(command):
    """It lists the options of all tasks and of generation, which their own files declare."""
    run(
        "import sys\n"
        "from ofa.cli.main import build_parser\n"
        "try:\n"
        f"    build_parser().parse_args([*'{command}'.split(), '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'fairseq', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


@pytest.mark.parametrize("words", ["demo", "draw a --out o", "evaluate rows.tsv", "predict a.jpg"])
def test_a_missing_checkpoint_is_named_before_anything_heavy_is_loaded(words, tmp_path):
    command, *rest = words.split()
    run(
        "import sys\n"
        "from ofa.cli.main import main\n"
        f"assert main(['{command}', '{tmp_path}/none.pt', *{rest}]) == 2\n"
        "heavy = {'torch', 'fairseq', 'torchvision', 'gradio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_what_few_runs_need_is_not_imported_at_the_start_of_each():
    """torchvision augments, the others divide a run among processes; together two seconds."""
    run(
        "import sys, ofa\n"
        "ofa.OFA, ofa.register_fairseq_plugin()\n"
        "few = {'torchvision', 'torch.distributed.fsdp', 'torch.distributed.optim'}\n"
        "assert not few & set(sys.modules), few & set(sys.modules)"
    )
