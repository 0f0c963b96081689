"""The map of CONTRIBUTING.md names every module once, in the order in which folders may import."""

import re
import tomllib

from r1nb.paths import CHECKOUT


def mapped() -> list[str]:
    return re.findall(r"^\| `([\w/]+\.py)` \|", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.MULTILINE)


def test_the_map_names_every_module_once():
    package = CHECKOUT / "r1nb"
    there = [str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(mapped()) == sorted(there)


def test_the_map_has_the_folders_in_the_order_of_their_layers():
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = list(dict.fromkeys(re.split(r"[/.]", name)[0] for name in mapped()))
    assert rooms == layers[::-1]
