"""The layers of the house: imports point down only, and fairseq stays behind files named
fairseq_*."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ofa", "models", "data", "criterions", "tasks")
# Folders (as import names) that plain files of a folder may import besides layer 1.
OWN = {
    "models": "ofa.models",
    "data": "ofa.data",
    "criterions": "ofa.criterions",
    "tasks": "ofa.tasks",
}
UPPER = (
    "ofa.models",
    "ofa.data",
    "ofa.criterions",
    "ofa.tasks",
    "ofa.cli",
    "ofa.predictor",
    "ofa.evaluation",
    "ofa.doctor",
    "ofa.demo.",
    "ofa.demo_page",
    "ofa.pretraining_rows",
)
# The top layer, and the files that put the plugin together, see everything.
FREE = (
    "ofa/cli/",
    "ofa/doctor/",
    "ofa/predictor.py",
    "ofa/demo.py",
    "ofa/demo_page.py",
    "ofa/evaluation.py",
    "ofa/pretraining_rows.py",
    "ofa/__main__.py",
    "ofa/__init__.py",
    "ofa/fairseq_",
    "tasks/fairseq_",
)


def source_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, imported module) of a file; ``from a import b`` counts as ``a.b`` too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path}:{node.lineno} imports relatively; always import absolutely"
            )
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def violations(path: str, found: list[tuple[int, str]]) -> list[str]:
    """Complaints about the imports of one file, e.g. ``models/a.py:12 imports ofa.data.b; ...``."""
    folder, name = path.split("/")[0], path.split("/")[-1]
    complaints = []
    for line, module in found:
        if module.split(".")[0] in ("fairseq", "fairseq_cli") and not name.startswith("fairseq_"):
            complaints.append(
                f"{path}:{line} imports {module}; only files named fairseq_*.py import fairseq"
            )
        if path.startswith(FREE):
            continue
        if folder == "ofa" and module.startswith(UPPER):
            complaints.append(
                f"{path}:{line} imports {module}; ofa/*.py is layer 1 and may import only layer 1"
            )
        foreign = module.startswith(UPPER) and not module.startswith(OWN.get(folder, "ofa."))
        if foreign and not name.startswith("fairseq_"):
            complaints.append(
                f"{path}:{line} imports {module}; {folder}/ may import only ofa/ and {folder}/"
            )
        if module.split(".")[0] in OWN:
            complaints.append(f"{path}:{line} imports {module}; write ofa.{module}")
    return complaints


def test_imports_point_down_only():
    complaints = [
        text
        for path in source_files()
        for text in violations(str(path.relative_to(ROOT)), imports(path))
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    "path, module",
    [
        ("models/encoder.py", "ofa.data.collate"),
        ("models/encoder.py", "fairseq.utils"),
        ("data/tsv.py", "ofa.tasks.caption"),
        ("ofa/boxes.py", "ofa.models.config"),
        ("ofa/text.py", "fairseq.data"),
        ("tasks/caption.py", "ofa.models.ofa"),
        ("data/tsv.py", "models.config"),
    ],
)
def test_the_rule_finds_a_wrong_import(path, module):
    assert violations(path, [(12, module)])


@pytest.mark.parametrize(
    "path, module",
    [
        ("models/encoder.py", "ofa.models.layers"),
        ("tasks/fairseq_task.py", "ofa.models.generate"),
        ("ofa/cli/evaluate.py", "ofa.tasks.fairseq_task"),
        ("models/fairseq_model.py", "fairseq.models"),
    ],
)
def test_the_rule_allows_imports_downwards(path, module):
    assert not violations(path, [(12, module)])
