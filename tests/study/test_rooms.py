"""Which room of the study may import which."""

import ast
from pathlib import Path

import pytest

from labelsmooth import study

HOUSE = Path(study.__file__).parent
PACKAGE = "labelsmooth.study."
ROOMS: dict[str, set[str]] = {
    "data": set(),
    "models": set(),
    "arms": set(),
    "fits": {"data", "models", "arms"},
    "trials": {"arms", "fits"},
    "analysis": {"arms", "trials"},
    "report": {"arms", "trials", "analysis"},
    "evaluation": {"data", "trials", "analysis"},
    "arguments": {"arms", "fits", "trials", "analysis"},
    "comparison": {"fits", "trials", "analysis", "report", "arguments"},
    "conclusion": {"trials", "analysis", "report"},
    "running": {"arms", "fits", "trials", "analysis", "report", "arguments", "conclusion"},
    "planning": {"arms", "fits", "trials", "report", "arguments"},
    "commands": {
        "data",
        "arms",
        "fits",
        "trials",
        "analysis",
        "report",
        "evaluation",
        "comparison",
        "running",
        "conclusion",
        "planning",
    },
}


def imported(file: Path) -> set[str]:
    """The modules of the study that a file names in its import statements, within functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.ImportFrom(module=str(module), level=0):
                found |= {f"{module}.{name.name}" for name in node.names}
            case ast.Import(names=names):
                found |= {name.name for name in names}
    return {name.removeprefix(PACKAGE) for name in found if name.startswith(PACKAGE)}


def files(room: str) -> list[Path]:
    return [*(HOUSE / room).rglob("*.py"), *HOUSE.glob(f"{room}.py")]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    rooms = {name.split(".")[0] for file in files(room) for name in imported(file)}
    assert rooms - {room} <= ROOMS[room]


def test_every_file_is_in_a_room_and_no_room_is_above_itself() -> None:
    assert {path.name.removesuffix(".py") for path in HOUSE.iterdir()} - {"__init__", "__pycache__"} == {
        *ROOMS
    }
    below: set[str] = set()
    for room, others in ROOMS.items():  # listed from the ground up
        assert others <= below
        below.add(room)


def test_no_module_imports_itself_by_way_of_another() -> None:
    names = {".".join(file.relative_to(HOUSE).with_suffix("").parts): file for file in HOUSE.rglob("*.py")}
    found = {name: imported(file) for name, file in names.items()}
    edges = {
        name: {other for other in names for what in found[name] if f"{what}.".startswith(f"{other}.")}
        for name in names
    }
    while leaves := {name for name, others in edges.items() if not others & edges.keys()}:
        edges = {name: others for name, others in edges.items() if name not in leaves}
    assert not edges
