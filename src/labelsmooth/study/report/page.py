"""The report: one page that needs no network and no script."""

from collections.abc import Mapping

import jinja2

from labelsmooth.study.analysis.figures import METRICS, RANKED
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import PROMISES, answer, effect, effects, verdict
from labelsmooth.study.arms.table import ARMS, GRADES
from labelsmooth.study.report import charts
from labelsmooth.study.report.terminal import change, interval, number
from labelsmooth.study.trials.files import replacing


def write_report(results: Results, outcomes: Mapping[str, charts.Outcomes]) -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("labelsmooth.study.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    featured = charts.featured(results)
    reliability = [
        (
            i,
            j,
            t,
            charts.reliability_picture(setting, setting.arms[j], outcomes[setting.name], scaled=bool(t)),
        )
        for i, setting in enumerate(results.settings)
        for t in (0, 1)
        for j in featured
    ]
    pictures = {
        "Accuracy against eps": charts.against_eps(results, "accuracy"),
        "NLL against eps, after temperature": charts.against_eps(results, "nll_scaled"),
        "NLL against eps, as trained": charts.against_eps(results, "nll"),
        "Training curves": charts.training_curves(results, outcomes),
        "The penultimate layer": charts.projections(results, outcomes),
    }
    page = environment.get_template("report.html").render(
        settings=results.settings,
        metrics={m: info for m, info in METRICS.items() if any(m in s.hard.values for s in results.settings)},
        featured=featured,
        forest=charts.against_hard(results),
        ranking_metrics=RANKED,
        methods=ARMS,
        grades=GRADES,
        reliability=reliability,
        pictures={title: picture for title, picture in pictures.items() if picture},
        floors={"ece": "noise_floor", "ece_scaled": "noise_floor_scaled"},
        promises=PROMISES,
        answer=answer,
        verdict=verdict,
        effect=effect,
        effects=effects,
        interval=interval,
        number=number,
        change=change,
        arm_name=charts.arm_name,
    )
    with replacing(results.folder / "report.html") as partial:
        partial.write_text(page, encoding="utf-8")
