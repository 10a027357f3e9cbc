"""``labelsmooth arms``: the table of arms on a terminal."""

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelsmooth.study.arms.options import spelled
from labelsmooth.study.arms.specs import FACTS, parse
from labelsmooth.study.arms.table import ARMS, GRADES, Method
from labelsmooth.study.commands.output import show


@dataclass(frozen=True)
class Arms:
    """List the arms that a study can compare, with their options, formula, use and evidence."""

    def __call__(self) -> None:
        show(catalogue())


def catalogue() -> RenderableType:
    """Each arm with its formula, use, evidence and options."""
    intro = Text(
        "An arm is written name or name:option=value,option=value, as in\n"
        "    labelsmooth study --arms ls:eps=0.1 ordinal:eps=0.2,kind=squared kl\n"
        'Hard targets are always among them; "all" is every arm.\n'
    )
    table = Table.grid(padding=(0, 2, 1, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, method in ARMS.items():
        table.add_row(name, Text("\n".join(_lines(name, method))))
    notes = [
        f"Evidence: {'; '.join(f'{grade}: {meaning}' for grade, meaning in GRADES.items())}.",
        f"Needs are attributes of a fit: {'; '.join(f'{fact}, {what}' for fact, what in FACTS.items())}.",
    ]
    return Group(intro, table, *map(Text, notes))


def _lines(name: str, method: Method) -> list[str]:
    options = [
        f"{option} (optional), {rule}"
        if rule.default is None
        else f"{option}={spelled(rule.default)}, {rule}"
        for option, rule in method.options.items()
    ]
    facts = ", ".join(sorted(parse(name).loss.facts))
    return [
        method.formula,
        f"For {method.purpose}. Evidence {method.grade}: {method.source}.",
        *options,
        *([f"Needs {facts}."] if facts else []),
    ]
