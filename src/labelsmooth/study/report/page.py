"""The report: one page without network access and scripts."""

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import jinja2

from labelsmooth.study.analysis.advice import next_steps
from labelsmooth.study.analysis.metrics import METRICS, TOPICS
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis
from labelsmooth.study.analysis.verdict import (
    PROMISES,
    answer,
    at,
    criteria,
    effect,
    is_of_smoothing,
    recommended,
    trusted,
    verdict,
)
from labelsmooth.study.arms.table import ARMS, GRADES
from labelsmooth.study.report import changes, charts, confusion, pictures
from labelsmooth.study.report.progress import duration
from labelsmooth.study.report.projection import projections
from labelsmooth.study.report.risk import risk_coverage
from labelsmooth.study.report.terminal import change, interval, number, probability, to_paste
from labelsmooth.study.trials.files import replacing


def write_report(
    results: Results,
    analyses: Sequence[Analysis],
    stored: Mapping[str, pictures.Outcomes],
    seconds: float | None,
    rows: Mapping[str, Sequence[str | bytes]] | None = None,
) -> None:
    """Write the report. ``seconds`` is the total time of the runs; ``rows`` has the texts or PNGs of the test
    rows of each setting."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("labelsmooth.study.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    seen = {analysis.setting.name: analysis for analysis in analyses}
    featured = pictures.featured(results)
    # Without validation rows in a setting, the control for the temperature would have no effect.
    temperatures = (0, 1) if all(setting.validation_rows for setting in results.settings) else (0,)
    reliability = [
        (
            i,
            j,
            t,
            charts.reliability_picture(setting, setting.arms[j], seen[setting.name], scaled=bool(t)),
        )
        for i, setting in enumerate(results.settings)
        for t in temperatures
        for j in featured
    ]
    drawn = {
        **{against_eps(metric): charts.against_eps(results, metric) for metric in _against_eps(results)},
        "Confusion of classes": confusion.confusion_picture(results, seen),
        "Risk and coverage": risk_coverage(results, seen),
        "Training curves": charts.training_curves(results, seen),
        "Penultimate layer": projections(results, stored),
    }
    page = environment.get_template("report.html").render(
        settings=results.settings,
        metrics=METRICS,
        topics=[(topic, shown) for topic in TOPICS if (shown := _shown(results, topic))],
        featured=featured,
        temperatures=temperatures,
        forest=charts.against_hard(results),
        ranking_metrics=results.settings[0].judged,
        ece=results.settings[0].at_best("ece"),
        methods=ARMS,
        grades=GRADES,
        reliability=reliability,
        pictures={title: picture for title, picture in drawn.items() if picture},
        of_smoothing=all(map(is_of_smoothing, results.settings)),
        promises=PROMISES,
        answer=answer,
        verdict=verdict,
        effect=effect,
        interval=interval,
        number=number,
        change=change,
        at=at,
        arm_name=pictures.arm_name,
        baseline=results.settings[0].baseline,
        said_criteria=list(dict.fromkeys(map(criteria, results.settings))),
        recommended=recommended,
        trusted=trusted,
        next_steps=next_steps,
        to_paste=to_paste,
        probability=probability,
        changed_rows={
            name: changes.changed_rows(analysis, (rows or {}).get(name, ()))
            for name, analysis in seen.items()
        },
        by_class={name: changes.by_class(analysis) for name, analysis in seen.items()},
        confused={name: confusion.confused_pairs(analysis) for name, analysis in seen.items()},
        made=_made(),
        took=None if seconds is None else duration(seconds),
    )
    with replacing(results.folder / "report.html") as partial:
        partial.write_text(page, encoding="utf-8")


def against_eps(metric: str) -> str:
    """The title of a chart."""
    short = METRICS[metric].short
    when = (f"{metric}_scaled" in METRICS and ", before temperature") or (
        at(metric) and ", after temperature"
    )
    return f"{short[0].upper()}{short[1:]} against eps{when}"


def _against_eps(results: Results) -> list[str]:
    """The judged metrics, and the most common ones."""
    first = results.settings[0]
    return list(dict.fromkeys(["accuracy", *first.judged, first.at_best("nll"), "nll"]))


def _shown(results: Results, topic: str) -> list[str]:
    """The metrics of a topic that a setting has."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.topic == topic and any(name in setting.hard.values for setting in results.settings)
    ]


def _made() -> dict[str, str]:
    """The time, the versions and the options of the study."""
    program, again = Path(sys.argv[0]).name, ""
    if program in ("labelsmooth", "__main__.py"):
        again = shlex.join(["labelsmooth", *sys.argv[1:]])
    elif program.endswith(".py"):
        again = shlex.join(["python", *sys.argv])
    return {
        "date": datetime.now().astimezone().strftime("%Y-%m-%d"),
        "versions": f"labelsmooth {version('labelsmooth')}, torch {version('torch')}, "
        f"Python {platform.python_version()}",
        "again": again,
    }
