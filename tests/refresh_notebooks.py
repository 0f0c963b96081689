"""Execute the notebooks and keep their outputs, cleaned: `make notebooks`.

    python tests/refresh_notebooks.py [notebook ...]

The outputs must come from the code beside them: a hash of the code cells is stored in the notebook, and a
test compares it with the code.
"""

import hashlib
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"  # empty without the kernel that made it
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def code_hash(notebook) -> str:
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def clean(notebook) -> None:
    """Drop what differs between runs without meaning anything: times, ids, stderr and widgets."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [
                o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})
            ]
            for output in cell.outputs:
                output.get("metadata", {}).clear()
                output.pop("transient", None)
                if len(output.get("data", {})) > 1:
                    output.data.pop("text/plain", None)  # it contains a memory address
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "r1nb": {"code_hash": code_hash(notebook)},
    }


def main(names: list[str]) -> None:
    paths = [NOTEBOOKS / Path(name).name for name in names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=None, kernel_name="python3", store_widget_state=False).execute()
        clean(notebook)
        nbformat.write(notebook, path)
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
