"""What a person types starts at once: heavy libraries come with the work, not with the command."""

import subprocess
import sys


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_and_parsing_commands_loads_no_heavy_library():
    run(
        "import sys, ofa\n"
        "from ofa.cli.main import build_parser\n"
        "build_parser()\n"
        "import ofa.submit.coco_vqa_muge, ofa.inference.requests\n"
        "heavy = {'torch', 'fairseq', 'torchvision', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_the_python_api_is_found_when_it_is_asked_for():
    run(
        "import ofa\n"
        "assert 'OFA' not in vars(ofa)\n"
        "from ofa import OFA\n"
        "assert OFA.__module__ == 'ofa.inference.predictor' and callable(OFA.load)\n"
        "try:\n"
        "    ofa.OFO\n"
        "except AttributeError as error:\n"
        "    assert 'OFO' in str(error)\n"
        "else:\n"
        "    raise AssertionError"
    )
