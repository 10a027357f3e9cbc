"""Writes the tables of methods.md, extending.md and engines.md from the code: python docs/methods_table.py.

A method's equation and reference come from its docstring, its statistics from calling it, its engines from
asking each engine, and its grade from the study's table of arms.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor

from labelsmooth import BCEWithLogitsLoss, formulas, functional, mixed, priors, schedules
from labelsmooth._core.statistics import DIFFERENTIABLE, Measures, RowStatistics
from labelsmooth._engines import linear, operator, reference, route, sharded, uniform
from labelsmooth._modules import losses, online
from labelsmooth._targets.mixed import Mixed
from labelsmooth.formulas import Formula
from labelsmooth.study.analysis.figures import Setting
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import effect
from labelsmooth.study.arms.table import ARMS, GRADES
from labelsmooth.study.report.terminal import MARKS, interval, number

DOCS = Path(__file__).parent
N, K, POSITIONS = 2, 3, 4
INPUT = torch.linspace(-1, 1, N * K * POSITIONS).sin().reshape(N, K, POSITIONS)
TARGET = torch.arange(N * POSITIONS).reshape(N, POSITIONS) % K
COUNTS = torch.tensor([3, 2, 1])
# All but the masses and z_max, which are constants.
SHOWN = (*RowStatistics._fields[:DIFFERENTIABLE], "overlap")
ENGINES = ("reference", "dense", "triton", "linear", "sharded")
OF_LOGITS = ENGINES[:3]
RANKED_BY: tuple[str, ...] = ("nll_scaled", "accuracy")


@dataclass(frozen=True)
class Method:
    """A row of the table: the documented object and a call that uses it."""

    name: str
    documented: object
    grade: str  # the study's arm that has the grade, a grade, or ""
    loss: Callable[[], object]
    engines: Sequence[str] | str = ENGINES  # the engines of its entry points, or what runs instead


def _smoothed(target: Tensor | Mixed = TARGET, **options: Any) -> Callable[[], object]:
    """A loss that uses the reference, since the fast path computes no row statistics."""
    options = {"label_smoothing": 0.1, **options}
    return lambda: functional.cross_entropy(INPUT, target, engine="reference", **options)


def _formula(formula: Formula, grade: str) -> Method:
    return Method(type(formula).__name__, type(formula), grade, _smoothed(formula=formula))


def _prior(make: Callable[..., Any], grade: str, *args: Any, **options: Any) -> Method:
    return Method(make.__name__, make, grade, _smoothed(prior=make(*args, **options)))


def _strength(make: Callable[..., Any], grade: str, *args: Any) -> Method:
    return Method(make.__name__, make, grade, _smoothed(label_smoothing=make(*args)))


FORMULAS = (
    _formula(formulas.LabelSmoothing(), "ls"),
    _formula(formulas.NegativeSmoothing(), "negative"),
    _formula(formulas.MaxSup(), "maxsup"),
    _formula(formulas.MarginSmoothing(), "mbls"),
    _formula(formulas.ConfidencePenalty(), "cp"),
    _formula(formulas.LabelRelaxation(), "relaxation"),
    _formula(formulas.Focal(), "focal"),
    _formula(formulas.ForwardCorrection(), "forward"),
    _formula(formulas.BackwardCorrection(), "backward"),
)
PRIORS = (
    _prior(priors.uniform, "ls", K),
    _prior(priors.unigram, "unigram", COUNTS),
    _prior(priors.masked, "C", torch.tensor([True, True, True])),
    _prior(priors.sord, "ordinal", K),
    _prior(priors.exponential, "ordinal", K),
    _prior(priors.triangular, "ordinal", K),
    _prior(priors.binomial, "ordinal", K),
    _prior(priors.beta, "ordinal", K),
    _prior(priors.hierarchy, "hierarchy", ["cat", "dog", ["car"]]),
    _prior(priors.similarity, "similarity", torch.eye(K)),
    _prior(priors.embedding, "similarity", torch.eye(K)),
    _prior(priors.confusion, "C", torch.eye(K) + 1),
    _prior(priors.per_sample, "bootstrap", INPUT.softmax(1)),
    _prior(priors.teacher, "B", INPUT, k=2),
    _prior(priors.neighbourhood, "C", TARGET),
)
STRENGTHS = (
    _strength(schedules.constant, "ls", 0.1),
    _strength(schedules.linear, "linear", 0.1, 0.2, 5),
    _strength(schedules.cosine, "cosine", 0.2, 0.0, 5),
    _strength(schedules.warm_up, "warmup", 0.1, 5),
    _strength(schedules.delayed, "negative", 0.1, 5),
    _strength(schedules.drop_late, "droplate", 0.1, 5),
    _strength(schedules.by_class, "byclass", torch.full((K,), 0.1)),
    _strength(schedules.by_counts, "byclass", COUNTS, 0.2, 0.0),
    _strength(schedules.graduated, "graduated", torch.full((N, POSITIONS), 0.5)),
)
LOSSES = (
    Method(
        "LabelSmoothingLoss",
        losses.LabelSmoothingLoss,
        "kl",
        lambda: losses.LabelSmoothingLoss(dim=1)(INPUT, TARGET),
        OF_LOGITS,
    ),
    Method(
        "OnlineLabelSmoothing",
        online.OnlineLabelSmoothing,
        "ols",
        lambda: online.OnlineLabelSmoothing(K)(INPUT, TARGET),
        OF_LOGITS,
    ),
    Method("mixed", mixed, "", _smoothed(mixed(TARGET, TARGET.flip(0), 0.7))),
    Method(
        "BCEWithLogitsLoss",
        functional.binary_cross_entropy_with_logits,
        "",
        lambda: BCEWithLogitsLoss(label_smoothing=0.1)(INPUT, INPUT > 0),
        "torch's own function",
    ),
)


class Recording(RowStatistics):
    """Row statistics that record which of them a formula reads."""

    asked: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in RowStatistics._fields:
            Recording.asked.add(name)
        return super().__getattribute__(name)


def observed(loss: Callable[[], object]) -> tuple[list[Measures], list[str]]:
    """The measures that a loss passes to its engine, and the statistics that it reads."""
    given: list[Measures] = []
    row_statistics = reference.row_statistics

    def record(z: Tensor, measures: Measures) -> RowStatistics:
        given.append(measures)
        return Recording(*row_statistics(z, measures))

    Recording.asked.clear()
    # The fast path computes no row statistics.
    with (
        patch.object(reference, "row_statistics", record),
        patch.object(route, "_fastest", return_value=reference),
        patch.object(uniform, "eager", return_value=None),
    ):
        loss()
    return given, [name for name in SHOWN if name in Recording.asked]


def serving(measures: Measures) -> list[str]:
    """The engines that support the measures."""
    measures, z = measures.flat(), INPUT.movedim(1, -1).flatten(0, -2)
    kernels = operator.unserved(z, measures) is None
    head = linear.Head(z, torch.eye(K), None, None, None, z.dtype)
    try:
        sharded.check_servable(measures)
        shards = True
    except ValueError:
        shards = False
    serves = (True, kernels, kernels, not linear.makes_logits(head, measures), shards)
    return [name for name, can in zip(ENGINES, serves, strict=True) if can]


def equations(documented: object) -> str:
    """The first equation of a docstring, with one line for each part."""
    doc = inspect.getdoc(documented) or ""
    block = re.search(r"^\.\. math::(.*?)(?=\n\S|\Z)", doc, re.DOTALL | re.MULTILINE)
    if block is None:
        return ""
    tex = " ".join(block[1].split())
    # GitHub reads a backslash before punctuation as Markdown and a bar as the end of a table cell.
    for old, new in (
        (r"\\", r"\cr"),
        (r"\{", r"\lbrace "),
        (r"\}", r"\rbrace "),
        (r"\|", r"\Vert "),
        ("|", r"\vert "),
        (r"\,", ""),
        (r"\!", ""),
        (r"\;", r"\quad "),
        ("*", r"\ast "),
    ):
        tex = tex.replace(old, new)
    tex = re.sub(
        r"\\quad\s*(\\text\{[^}]*\})\s*\\quad", r"\\qquad \1 \\qquad", tex.replace(r"\ ", r"\enspace ")
    )
    parts = [part.strip().rstrip(",").rstrip() for part in tex.split(r"\qquad")]
    lines = [line for part in parts if part for line in _broken(part)]
    return "<br>".join(f"${line}$" for line in lines)


def _broken(equation: str) -> list[str]:
    """Split a long chain of two equations into two lines."""
    ends = [i.start() for i in re.finditer(" = ", equation)]
    outside = [i for i in ends if equation.count("{", 0, i) == equation.count("}", 0, i)]
    if len(equation) < 90 or len(outside) < 2:
        return [equation]
    return [equation[: outside[1]], equation[outside[1] + 1 :]]


def source(documented: object) -> str:
    """The authors and the venue from the section Reference, without the titles."""
    doc = inspect.getdoc(documented) or ""
    section = re.search(r"^Reference:\n((?:    .*\n?)+)", doc, re.MULTILINE)
    text = " ".join(section[1].split()).rstrip(".") if section else ""
    return re.sub(r" \*[^*]*\*,", "", text)


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names) or "–"


def _engines(names: Sequence[str]) -> str:
    missing = [name for name in ENGINES if name not in names]
    if len(missing) > 1:
        return _code(names)
    return f"all but `{missing[0]}`" if missing else "all"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def methods(these: Sequence[Method]) -> str:
    rows = []
    for method in these:
        given, asked = observed(method.loss)
        engines = method.engines
        if not isinstance(engines, str):
            engines = _engines([name for name in serving(given[0]) if name in method.engines])
        grade = ARMS[method.grade].grade if method.grade in ARMS else method.grade or "–"
        formula = equations(method.documented)
        rows.append((f"`{method.name}`", formula, _code(asked), engines, source(method.documented), grade))
    return table(("method", "formula", "statistics", "engines", "source", "grade"), rows)


def grades() -> str:
    return table(("grade", "confirmed by"), GRADES.items())


def lengths() -> str:
    """The lines of each formula's ``factors`` or ``__call__``, and the expression that it returns."""
    rows = []
    for method in FORMULAS:
        formula: Any = method.documented
        source = formula.factors if formula.__call__ is Formula.__call__ else formula.__call__
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(source))).body
        assert isinstance(function, ast.FunctionDef)
        *_, last = function.body
        assert isinstance(last, ast.Return)
        lines = ast.unparse(ast.Module(function.body, [])).splitlines()
        rows.append(
            (f"`{method.name}`", str(len(lines)), f"`{ast.unparse(last.value)}`" if last.value else "")
        )
    return table(("formula", "lines", "returned expression"), rows)


def combinations() -> str:
    """The engines that support each combination beyond class indices and any prior, which all support."""
    of_few = priors.teacher(INPUT, k=2)
    by_class, hinge = priors.sord(K), formulas.MaxSup()
    soft = INPUT.softmax(1)
    cases = (
        ("`hinge`: `MaxSup`, `MarginSmoothing`", TARGET, {"formula": hinge}),
        ("`hinge` with a per-sample prior over a few classes", TARGET, {"formula": hinge, "prior": of_few}),
        ("`model_z`: `ConfidencePenalty`", TARGET, {"formula": formulas.ConfidencePenalty()}),
        ("`overlap`: `ForwardCorrection`", TARGET, {"formula": formulas.ForwardCorrection()}),
        ("class probabilities or mixup labels", soft, {}),
        ("the same with a `(K, K)` prior", soft, {"prior": by_class}),
        ('the same with `off_target="others"`', soft, {"off_target": "others"}),
    )
    rows = []
    for what, target, options in cases:
        (measures,), _ = observed(_smoothed(target, **options))
        able = serving(measures)
        rows.append((what, *("yes" if name in able else "–" for name in ENGINES)))
    return table(("", *(f"`{name}`" for name in ENGINES)), rows)


def digits() -> str:
    """The saved results of `labelsmooth study --arms all` on digits: each arm's differences from hard
    targets, marked if they are significant after Holm's correction."""
    settings = Results.load(DOCS / "digits").settings
    columns = [_differences(setting) for setting in settings]
    rows = [(f"`{arm.name}`", *(column[arm.name] for column in columns)) for arm in settings[0].ranking]
    return table(("arm", *(setting.name for setting in settings)), rows)


def _differences(setting: Setting) -> dict[str, str]:
    found = {setting.hard.name: "<br>".join(number(m, setting.hard.values[m].mean) for m in RANKED_BY)}
    for arm in setting.arms[1:]:
        lines = [f"{interval(arm.differences[m], m)} {MARKS[effect(setting, arm, m)][0]}" for m in RANKED_BY]
        found[arm.name] = "<br>".join(line.strip() for line in lines)
    return found


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "explanation/methods.md": {
        "formulas": lambda: methods(FORMULAS),
        "priors": lambda: methods(PRIORS),
        "strengths": lambda: methods(STRENGTHS),
        "losses": lambda: methods(LOSSES),
        "grades": grades,
        "digits": digits,
    },
    "how_to/extending.md": {"lengths": lengths},
    "explanation/engines.md": {"combinations": combinations},
}


def rendered(page: str, text: str, tables: Mapping[str, Callable[[], str]] | None = None) -> str:
    """The text of a page with up-to-date tables, each between two markers."""
    for name, make in (tables or PAGES[page]).items():
        begin, end = f"<!-- table: {name} -->", "<!-- end of the table -->"
        before, _, rest = text.partition(begin)
        _, marker, after = rest.partition(end)
        if not marker:
            raise ValueError(f"{page} must have a place for the table {name!r}, between {begin} and {end}")
        text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        path = DOCS / page
        path.write_text(rendered(page, path.read_text(encoding="utf-8")), encoding="utf-8")
