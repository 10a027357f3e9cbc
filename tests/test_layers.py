"""Which room of the package may import which; those of the study are in tests/study/test_rooms.py."""

import ast
from pathlib import Path

import labelsmooth

HOUSE = Path(labelsmooth.__file__).parent
# From the ground up: a room imports what is below its own layer, and nothing beside it.
LAYERS = (
    {"_core"},
    {"_engines", "formulas", "priors", "schedules", "calibration"},
    {"_targets"},
    {"functional"},
    {"_modules", "engines"},
    {"__init__"},
    {"study", "integrations"},
    {"__main__"},
)
PUBLIC = {"calibration", "engines", "formulas", "functional", "integrations", "priors", "schedules", "study"}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(file): file for file in HOUSE.rglob("*.py")}


def imported(node: ast.AST) -> set[str]:
    """The modules that import statements name, but for those within functions."""
    found: set[str] = set()
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef():
                continue
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("labelsmooth"):
                found |= {f"{module}.{name.name}" for name in names}
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
        found |= imported(child)
    own = {f"{name.removeprefix('labelsmooth.')}." for name in found if name.startswith("labelsmooth.")}
    return {max((m for m in FILES if name.startswith(f"{m}.")), key=len, default="__init__") for name in own}


EDGES = {module: imported(ast.parse(file.read_text())) for module, file in FILES.items()}


def test_a_room_imports_only_what_is_below() -> None:
    rank = {room: i for i, layer in enumerate(LAYERS) for room in layer}
    assert {module.split(".")[0] for module in FILES} == rank.keys()
    for module, others in EDGES.items():
        room = module.split(".")[0]
        assert all(other == room or rank[other] < rank[room] for other in {o.split(".")[0] for o in others})


def test_no_module_imports_itself_by_way_of_another() -> None:
    edges = EDGES
    while leaves := {name for name, others in edges.items() if not others - {name} & edges.keys()}:
        edges = {name: others for name, others in edges.items() if name not in leaves}
    assert not edges


def test_what_is_not_public_has_an_underscore() -> None:
    """The rooms of the study have their own rules, and an integration has the name of its framework."""
    for module in FILES:
        room, *rest = module.split(".")
        rest = rest[1:] if room == "integrations" else rest
        assert room in PUBLIC or room.startswith("_")
        assert room == "study" or room.startswith("_") or all(part.startswith("_") for part in rest)
