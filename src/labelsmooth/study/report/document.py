"""The results for programs: one JSON document."""

import json
from dataclasses import asdict

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import answer, recommended, verdict
from labelsmooth.study.trials.record import notes_of


def as_json(results: Results) -> str:
    """What ``results.json`` holds, and of each setting its verdict, its answer in words, the arm that is
    chosen, the one that is recommended, and what was tried besides what was asked for."""
    notes = notes_of(results.folder)
    settings = [
        {
            "name": setting.name,
            "verdict": verdict(setting),
            "answer": answer(setting),
            "chosen": setting.chosen.name,
            "recommended": recommended(setting).name,
            "notes": notes.get(setting.name, []),
            **asdict(setting),
        }
        for setting in results.settings
    ]
    content = {"digest": results.digest, "folder": str(results.folder), "settings": settings}
    return json.dumps(content, indent=1)
