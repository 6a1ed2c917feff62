"""The programs and notebooks in ``examples/``, on the host."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PATIENCE

EXAMPLES = Path(__file__).parent.parent / "examples"


def text_of(notebook):
    """Return what the cells of a notebook that ran print and show, by the type of the output."""
    shown = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data") or {"text/plain": output.get("text", "")}
            for kind, text in data.items():
                shown[kind] = shown.get(kind, "") + text
    return shown


@pytest.mark.parametrize("name", [file.stem for file in EXAMPLES.glob("*.ipynb")])
def test_the_notebook_runs(name, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("FENCEPOST_DEVICE", "host")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3").execute()
    shown = text_of(notebook)
    assert "a call in a row" in shown["text/plain"]
    assert "<svg" in shown["text/html"]
    picture = shown["image/svg+xml"]
    assert all(f">{name}" in picture for name in ("load", "compute", "synchronize"))
    assert "['loaded', 'computed']" in shown["text/plain"]
    assert "the data" in shown["text/plain"]


def test_the_example_with_jax_runs():
    pytest.importorskip("jax", reason="JAX is not installed")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "jax_cpu.py"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "a call in a row" in done.stdout
