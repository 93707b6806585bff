"""Links of the documents lead somewhere, and what docs/security.md names exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.io.stored_options import STORED

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "benchmarks", "tests", "run_scripts", ".github")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))]
)
SECURITY = ROOT / "docs" / "security.md"
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
ELSEWHERE = ("http://", "https://", "mailto:", "#")
PATH = re.compile(
    r"(?<![\w./-])(?:ofa|data|models|tasks|criterions|tests|run_scripts|benchmarks|docs)/[\w./*-]*[\w*/]"
)


def broken_links(document: Path) -> list[str]:
    """Links within the repository to files that are not there."""
    links = LINK.findall(document.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if not link.startswith(ELSEWHERE)]
    return [link for link in local if not (document.parent / link).exists()]


def named_paths(text: str) -> list[str]:
    """Paths below the folders of the repository."""
    return list(dict.fromkeys(PATH.findall(text)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_to_a_file(document):
    assert broken_links(document) == []


def test_a_link_to_a_missing_file_is_found(tmp_path):
    (tmp_path / "a.md").write_text("[b](b.md#part), [a](a.md), [c](https://example.org/c)")
    assert broken_links(tmp_path / "a.md") == ["b.md"]


CONCEPTS = [
    f"docs/{name}.md"
    for name in ("vocabulary", "tasks", "data", "model", "generation", "training", "checkpoints")
]
PAGES = ["docs/architecture.md", "docs/security.md", "CONTRIBUTING.md", *CONCEPTS]


@pytest.mark.parametrize("name", PAGES)
def test_every_path_that_a_document_names_exists(name):
    paths = named_paths((ROOT / name).read_text(encoding="utf-8"))
    assert len(paths) > 4
    assert [path for path in paths if not any(ROOT.glob(path))] == []


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md", *CONCEPTS])
def test_every_class_and_constant_that_a_document_names_exists(name):
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.S)
    names = {*re.findall(r"`(?:[a-z_]+\.)*([A-Z]\w+)`", text)}
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for top in ("ofa", "models", "data", "criterions", "tasks")
        for path in sorted((ROOT / top).rglob("*.py"))
    )
    assert names
    assert [one for one in names if not re.search(rf"^\s*(class )?{one}\b", code, re.M)] == []


@pytest.mark.parametrize(
    "page, printed",
    [
        ("architecture.md", "torch.Size([3, 480, 480])"),
        (
            "tasks.md",
            " how many dogs are there? ->  3\n{'id': 0, 'image': 1, 'thing': 2, 'count': 3}",
        ),
        ("evaluation.md", "a cat {'score': 1.0}"),
        ("asking.md", "vqa_gen {'question': 'what color is it?'} {'id': 7}"),
        ("vocabulary.md", "<bin_35> <bin_62> <bin_375> <bin_375> True"),
        ("data.md", "torch.Size([2, 3, 64, 64])"),
        ("model.md", "torch.Size([2, 3, 300])"),
        ("generation.md", "True"),
        ("training.md", "7 tokens may be predicted; 7 get a gradient\n[[-1.5, 1.5, 0.0]]"),
        ("checkpoints.md", "{'_name': 'caption'}\nTrue"),
    ],
)
def test_the_code_of_a_page_runs(tmp_path, page, printed):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


def test_the_tutorial_shows_the_file_of_the_example():
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    example = ROOT / "examples" / "counting_task" / "counting_task.py"
    assert f"```python\n{example.read_text(encoding='utf-8')}```" in text


def test_the_site_is_built_without_a_warning_and_holds_every_page(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages - {"index"} == {page.parent.name for page in tmp_path.glob("*/index.html")}
    assert "OFA.load" in re.sub(r"<[^>]+>", "", (tmp_path / "api/index.html").read_text())


def test_the_table_of_tasks_is_that_of_the_declarations():
    from ofa.tasks import spec_of

    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| [^|]* \| `([\d,]+)` \|$", text, re.M)
    assert len(rows) == 17
    for name, aliases, columns in rows:
        spec = spec_of(name)
        assert (re.findall(r"`(\w+)`", aliases), columns) == ([*spec.aliases], spec.default_cols)


def test_paths_are_found_in_commands_and_tables():
    text = (
        "`python tests/fuzz/run.py --rows 4` | `ofa/io/paths.py`, `data/shard_*.py`, and/or"
        " x/data/y"
    )
    assert named_paths(text) == ["tests/fuzz/run.py", "ofa/io/paths.py", "data/shard_*.py"]


def test_the_security_page_names_every_stored_option_that_is_treated_specially():
    text = SECURITY.read_text(encoding="utf-8")
    assert [name for name in STORED if f"`{name}`" not in text] == []
