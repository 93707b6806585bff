"""Imports point down only, nothing goes in circles, and only fairseq_*.py know fairseq."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPS = ("ofa", "models", "data", "criterions", "tasks")

# What the files of a folder may import besides that folder. ``ofa``: the flat files of it.
LAYER_0 = {"ofa"}
LAYER_1 = LAYER_0 | {"ofa/io", "ofa/tokens", "ofa/task", "ofa/metrics"}
LAYER_2 = {"models", "models/generation", "models/image_tokenizer", "data", "criterions", "tasks"}
LAYER_3 = LAYER_1 | LAYER_2 | {"ofa/checkpoints"}
LAYER_4 = LAYER_3 | {"ofa/trainer", "fairseq_*"}
LAYER_5 = LAYER_4 | {"ofa/inference"}
MAY_IMPORT = {
    "ofa": set(),
    "ofa/io": LAYER_0,
    "ofa/tokens": LAYER_0 | {"ofa/io"},
    "ofa/task": LAYER_0 | {"ofa/io", "ofa/tokens"},
    "ofa/metrics": LAYER_0 | {"ofa/io", "ofa/tokens", "ofa/task"},
    "models": LAYER_1,
    "models/generation": LAYER_1 | {"models"},
    "models/image_tokenizer": LAYER_1 | {"models"},
    "data": LAYER_1,
    "criterions": LAYER_1,
    "tasks": LAYER_1,
    "ofa/checkpoints": LAYER_1 | LAYER_2,
    "ofa/trainer": LAYER_3,
    "fairseq_*": LAYER_4,  # the files of that name, in every folder but ofa/trainer
    "ofa/inference": LAYER_4,
    "ofa/prepare": LAYER_5,
    "ofa/doctor": LAYER_5,
    "ofa/report": LAYER_5,
    "ofa/submit": LAYER_5,
    "ofa/synthetic": LAYER_5 | {"ofa/prepare"},
    "ofa/demo": LAYER_5 | {"ofa/synthetic", "ofa/report"},
    "ofa/cli": LAYER_5
    | {"ofa/prepare", "ofa/doctor", "ofa/report", "ofa/submit", "ofa/synthetic", "ofa/demo"},
}
# They put the package together: the Python API, the plugin, ``python -m ofa``.
ENTRIES = {"ofa/__init__.py", "ofa/__main__.py", "ofa/fairseq_plugin.py"}


def module_of(path: str) -> str:
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts if parts[0] == "ofa" else ["ofa", *parts])


FILES = {
    module_of(str(p.relative_to(ROOT))): p
    for top in TOPS
    for p in sorted((ROOT / top).rglob("*.py"))
}


def folder_of(path: str) -> str:
    """``models/fairseq_model.py`` -> ``fairseq_*``, ``models/encoder.py`` -> ``models``."""
    folder, _, name = path.rpartition("/")
    return "fairseq_*" if name.startswith("fairseq_") and folder != "ofa/trainer" else folder


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, imported module) of a file, imports within functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path}:{node.lineno} imports relatively; always import absolutely"
            )
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if name in FILES else node.module) for name in names]
    return found


def complaints(path: str, found: list[tuple[int, str]]) -> list[str]:
    """What is wrong with imports, e.g. ``models/a.py:12 imports ofa.data.b; ...``."""
    folder, texts = folder_of(path), []
    for line, module in found:
        if module.split(".")[0] in ("fairseq", "fairseq_cli") and not path.split("/")[
            -1
        ].startswith("fairseq_"):
            texts.append(
                f"{path}:{line} imports {module}; only files named fairseq_*.py import fairseq"
            )
        if module.split(".")[0] in TOPS[1:]:
            texts.append(f"{path}:{line} imports {module}; write ofa.{module}")
        if module not in FILES or path in ENTRIES:
            continue
        target = folder_of(str(FILES[module].relative_to(ROOT)))
        if target != folder and target not in MAY_IMPORT[folder]:
            allowed = ", ".join(sorted(MAY_IMPORT[folder])) or "nothing"
            texts.append(f"{path}:{line} imports {module}; {folder} may import {allowed}")
    return texts


def test_imports_point_down_only():
    found = [
        text for p in FILES.values() for text in complaints(str(p.relative_to(ROOT)), imports(p))
    ]
    assert not found, "\n".join(found)


def test_no_circle_between_files():
    graph = {
        name: {module for _, module in imports(path) if module in FILES} - {name}
        for name, path in FILES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_circle_between_folders():
    graph = {
        folder: targets - {folder, "fairseq_*"}
        for folder, targets in MAY_IMPORT.items()
        if folder != "fairseq_*"
    }
    order = list(TopologicalSorter(graph).static_order())
    assert order[0] == "ofa" and order[-1] == "ofa/cli"


def test_every_folder_has_a_line_here_and_says_what_it_is_for():
    for folder in {p.parent for p in FILES.values()}:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert str(folder.relative_to(ROOT)) in MAY_IMPORT and 3 <= text.count("\n") <= 12, folder


def test_the_package_itself_holds_folders_and_few_files():
    assert len(list((ROOT / "ofa").glob("*.py"))) <= 8


@pytest.mark.parametrize(
    "path, module",
    [
        ("models/encoder.py", "ofa.data.collate"),
        ("models/encoder.py", "ofa.models.generation.search"),
        ("models/encoder.py", "fairseq.utils"),
        ("data/tsv.py", "ofa.tasks.caption"),
        ("ofa/tokens/boxes.py", "ofa.task.text"),
        ("ofa/task/text.py", "fairseq.data"),
        ("tasks/caption.py", "ofa.models.config"),
        ("data/tsv.py", "models.config"),
        ("ofa/inference/predictor.py", "ofa.report.page"),
    ],
)
def test_the_rule_finds_a_wrong_import(path, module):
    assert complaints(path, [(12, module)])


@pytest.mark.parametrize(
    "path, module",
    [
        ("models/encoder.py", "ofa.models.layers"),
        ("tasks/fairseq_task.py", "ofa.models.generation.generator"),
        ("ofa/cli/evaluate.py", "ofa.tasks.fairseq_task"),
        ("models/fairseq_model.py", "fairseq.models"),
    ],
)
def test_the_rule_allows_imports_downwards(path, module):
    assert not complaints(path, [(12, module)])
