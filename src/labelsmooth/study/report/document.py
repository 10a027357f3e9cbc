"""The results as one JSON document."""

import json
from dataclasses import asdict

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import answer, recommended, verdict
from labelsmooth.study.trials.record import notes_of


def as_json(results: Results) -> str:
    """The contents of ``results.json``, and for each setting its verdict, the answer in words, the chosen and
    the recommended arm, and notes on added arms."""
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
