"""What a person types starts at once: heavy libraries come with the work, not with the command."""

import subprocess
import sys


def test_importing_the_package_and_parsing_commands_loads_no_heavy_library():
    code = (
        "import sys, ofa\n"
        "from ofa.cli.main import build_parser\n"
        "build_parser()\n"
        "import ofa.submit.uploads, ofa.inference.requests\n"
        "heavy = {'torch', 'fairseq', 'torchvision', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
