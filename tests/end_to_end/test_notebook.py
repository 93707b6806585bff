"""The notebook of ``examples/`` runs from its first cell to its last, with small settings."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from programs import interpreter

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "%env SCENES=40\n%env UNSEEN=4\n%env CAPTION_UPDATES=2\n%env JOINT_UPDATES=2\n%env PROCESSES=1"
)


PATH = ROOT / "examples" / "quickstart.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with its outputs, and the folder in which it ran."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(PATH, as_version=4)
    settings = code_cells(notebook)[0]
    assert re.findall(r"%env (\w+)=", settings.source) == re.findall(r"%env (\w+)=", SMALL)
    # `ofa` lies beside the interpreter that the notebook sees
    settings.source = f"{SMALL}\nimport sys\nsys.executable = {interpreter()!r}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        metadata = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=metadata).execute()
    return notebook, folder


def shown(notebook) -> list[str]:
    """Kinds of what cells display, in order."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [kind for output in outputs for kind in output.get("data", {}) if "/" in kind]


def test_no_outputs_are_stored():
    cells = code_cells(nbformat.read(PATH, as_version=4))
    assert len(cells) > 5
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_every_cell_runs_and_images_curves_and_the_page_are_shown(executed):
    notebook, folder = executed
    kinds = shown(notebook)
    assert kinds.count("image/png") == 2  # the scene, and the predictions
    assert "image/svg+xml" in kinds  # a curve of the training
    assert (folder / "runs/boxes.html").is_file()


def test_each_question_of_the_scene_is_answered(executed):
    notebook, _ = executed
    (answers,) = (cell for cell in code_cells(notebook) if "model.answer" in cell.source)
    printed = "".join(output.text for output in answers.outputs if output.output_type == "stream")
    assert len(re.findall(r"\? \w.* \(0\.\d+; true: \w", printed)) >= 2, printed
