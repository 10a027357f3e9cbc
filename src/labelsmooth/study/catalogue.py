"""The table of arms, to be read on a terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from labelsmooth.study.arms import ARMS, FACTS, GRADES, Method, parse


def catalogue() -> RenderableType:
    """Each arm with its options, formula, use and evidence."""
    intro = Text(
        "An arm is written name or name:option=value,option=value, as in\n"
        "    labelsmooth study --arms ls:eps=0.1 others kl\n"
        "Hard targets are always among them, and --arms all is every arm.\n"
    )
    grades = "; ".join(f"{grade} {meaning}" for grade, meaning in GRADES.items())
    facts = "; ".join(f"{name}: {meaning}" for name, meaning in FACTS.items())
    notes = Text(f"\nEvidence: {grades}.\nNeeds: attributes of your own fit. {facts}.")
    return Group(intro, *(_entry(name, method) for name, method in ARMS.items()), notes)


def _entry(name: str, method: Method) -> Text:
    lines = [("for", method.purpose), ("evidence", f"{method.grade}, {method.source}")]
    for option, rule in method.options.items():
        default = "" if rule.default is None else f" (default {rule.default})"
        lines.append((option, f"must {rule.rule}{default}"))
    if facts := parse(name).loss.facts:
        lines.append(("needs", ", ".join(sorted(facts))))
    details = "".join(f"\n    {title:9} {said}" for title, said in lines)
    return Text.assemble((name, "bold"), f"  {method.formula}", details)
