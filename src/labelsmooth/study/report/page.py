"""The report: one page that needs no network and no script."""

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import jinja2

from labelsmooth.study.analysis.advice import next_steps
from labelsmooth.study.analysis.figures import JUDGED, METRICS
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis
from labelsmooth.study.analysis.verdict import (
    PROMISES,
    answer,
    criteria,
    effect,
    recommended,
    verdict,
)
from labelsmooth.study.arms.table import ARMS, GRADES
from labelsmooth.study.report import changes, charts
from labelsmooth.study.report.progress import duration
from labelsmooth.study.report.terminal import change, interval, number, probability, to_paste
from labelsmooth.study.trials.files import replacing


def write_report(
    results: Results,
    analyses: Sequence[Analysis],
    stored: Mapping[str, charts.Outcomes],
    seconds: float,
) -> None:
    """``seconds`` is how long the runs took, one after another."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("labelsmooth.study.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    seen = {analysis.setting.name: analysis for analysis in analyses}
    featured = charts.featured(results)
    reliability = [
        (
            i,
            j,
            t,
            charts.reliability_picture(setting, setting.arms[j], seen[setting.name], scaled=bool(t)),
        )
        for i, setting in enumerate(results.settings)
        for t in (0, 1)
        for j in featured
    ]
    pictures = {
        "Accuracy against eps": charts.against_eps(results, "accuracy"),
        "NLL against eps, after temperature": charts.against_eps(results, "nll_scaled"),
        "NLL against eps, as trained": charts.against_eps(results, "nll"),
        "Training curves": charts.training_curves(results, seen),
        "The penultimate layer": charts.projections(results, stored),
    }
    page = environment.get_template("report.html").render(
        settings=results.settings,
        metrics={m: info for m, info in METRICS.items() if any(m in s.hard.values for s in results.settings)},
        featured=featured,
        forest=charts.against_hard(results),
        ranking_metrics=JUDGED,
        methods=ARMS,
        grades=GRADES,
        reliability=reliability,
        pictures={title: picture for title, picture in pictures.items() if picture},
        floors={"ece": "noise_floor", "ece_scaled": "noise_floor_scaled"},
        promises=PROMISES,
        answer=answer,
        verdict=verdict,
        effect=effect,
        interval=interval,
        number=number,
        change=change,
        arm_name=charts.arm_name,
        said_criteria=list(dict.fromkeys(map(criteria, results.settings))),
        recommended=recommended,
        next_steps=next_steps,
        to_paste=to_paste,
        probability=probability,
        changed_rows={name: changes.changed_rows(analysis) for name, analysis in seen.items()},
        by_class={name: changes.by_class(analysis) for name, analysis in seen.items()},
        made=_made(),
        took=duration(seconds),
    )
    with replacing(results.folder / "report.html") as partial:
        partial.write_text(page, encoding="utf-8")


def _made() -> dict[str, str]:
    """When, with what and how the study was made."""
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
