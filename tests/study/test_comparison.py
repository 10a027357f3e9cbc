"""What somebody else has trained is judged as what a study trains."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelsmooth.study import Results, compare
from labelsmooth.study.analysis.advice import next_steps
from labelsmooth.study.analysis.metrics import CARES
from labelsmooth.study.analysis.summary import analyse
from labelsmooth.study.analysis.verdict import answer, criteria
from labelsmooth.study.trials.files import Job

from .made_up import HOSTILE_NAMES, outcomes
from .test_report import Page
from .test_terminal import shown

EPS, SEEDS = [0.0, 0.1, 0.3], [0, 1, 2]
RUNS = outcomes(EPS, SEEDS)
NAMES = ["hard", "ls:eps=0.1", "ls:eps=0.3"]


def runs_of(arm: str, *keys: str, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """With these keys of a result; all if none is named."""
    every = [RUNS[Job(arm, seed)] for seed in seeds]
    keys = keys or ("val", "test", "train", "clean")
    return [{key: getattr(run, key) for key in keys} for run in every]


def compared(
    *keys: str, names: Sequence[str] = NAMES, seeds: Sequence[int] = SEEDS, **options: Any
) -> Results:
    return compare(
        {name: runs_of(arm, *keys, seeds=seeds) for name, arm in zip(names, NAMES, strict=False)}, **options
    )


@pytest.mark.slow
def test_its_numbers_are_those_of_the_study_that_trained_them():
    expected = analyse("your data", "", RUNS, NAMES, SEEDS).setting
    (found,) = compared().settings
    assert found == expected
    assert str(compared()) == f"your data: {answer(expected)}"


@pytest.mark.slow
def test_arrays_and_declared_probabilities_give_the_same_numbers():
    def arrays(arm: str) -> list[dict[str, Any]]:
        return [
            {
                "probabilities": True,
                **{k: (run[k][0].softmax(-1).numpy(), run[k][1].numpy()) for k in ("val", "test")},
            }
            for run in runs_of(arm)
        ]

    (found,) = compare({name: arrays(name) for name in NAMES}).settings
    (expected,) = compared("val", "test").settings
    for arm, other in zip(found.arms, expected.arms, strict=True):
        for metric, e in arm.values.items():
            assert e.mean == pytest.approx(other.values[metric].mean, abs=1e-6)


def test_any_name_will_do():
    (setting,) = compared(names=["ours", "theirs", "focal"]).settings
    assert [arm.label for arm in setting.arms] == ["ours", "theirs", "focal"]
    assert [(arm.eps, arm.code) for arm in setting.arms] == [(None, "")] * 3  # nobody knows what it was
    assert setting.baseline == "ours"
    said = f"{answer(setting)} {' '.join(next_steps(setting))}"
    assert "hard targets" not in said
    assert 'Keep "ours"' in said or 'Use "' in said
    text = " ".join(shown(Results([setting], "", None)))
    assert "hard" not in text
    assert "CrossEntropyLoss" not in text
    assert "report:" not in text


def test_without_validation_rows_there_is_no_temperature():
    (setting,) = compared("test").settings
    assert setting.validation_rows == 0
    for arm in setting.arms:
        assert arm.temperature is None
        assert not [metric for metric in arm.values if metric.endswith("_scaled")]
    assert setting.judged == ("accuracy", "nll")
    # The best of the test rows, among all of which it is sure.
    nlls = {arm.name: arm.values["nll"].mean for arm in setting.arms[1:]}
    assert setting.chosen.name == min(nlls, key=lambda name: nlls[name])
    assert "divide the logits" not in answer(setting)
    assert "Without validation rows there is no temperature, and the arm is the best" in answer(setting)
    assert "at 95 % for 4 tests (Holm). Chosen by NLL on test rows." in criteria(setting)
    assert " at T" not in " ".join(shown(Results([setting], "", None)))


def test_one_run_of_each_is_compared_on_its_rows_alone():
    (setting,) = compared(seeds=[0]).settings
    assert setting.seeds == 1
    difference = setting.arms[1].differences["accuracy"]
    right = [(run["test"][0].argmax(-1) == run["test"][1]).double() for run in (*runs_of("ls:eps=0.1"),)][:1]
    was = (RUNS[Job("hard", 0)].test[0].argmax(-1) == RUNS[Job("hard", 0)].test[1]).double()
    error = float((right[0] - was).std()) / len(was) ** 0.5
    assert difference.high - difference.mean == pytest.approx(1.99 * error, rel=0.01)  # t of 79 degrees
    assert "With one run of each arm, the intervals cover other test rows but not other runs" in answer(
        setting
    )


@pytest.mark.parametrize("care", [care for care in CARES if care not in ("ordinal", "ood")])
def test_what_somebody_cares_about_is_judged_and_chooses(care: str):
    (setting,) = compared(care=care).settings
    assert (setting.judged, setting.by) == (CARES[care].judged, CARES[care].by)
    said = criteria(setting)
    for metric in CARES[care].judged:
        assert metric in setting.chosen.differences
    assert ("Chosen by" in said) == (care != "overall")
    assert setting.care == care


@pytest.mark.slow
def test_ordinal_labels_are_declared_and_unknown_classes_given():
    with pytest.raises(
        ValueError, match=r"care='ordinal' judges by MAE and kappa, which requires ordinal labels"
    ):
        compared(care="ordinal")
    (setting,) = compared(care="ordinal", ordinal=True).settings
    assert setting.judged == ("mae", "kappa")
    assert "MAE" in answer(setting)
    with pytest.raises(
        ValueError, match=r"care='ood' judges by OOD AUROC, which requires the logits of out-of"
    ):
        compared(care="ood")
    unknown = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    arms = {name: [{**run, "ood": unknown} for run in runs_of(name)] for name in NAMES}
    (setting,) = compare(arms, care="ood").settings
    assert "OOD AUROC" in answer(setting)
    assert setting.chosen.differences["ood_auroc"].mean != 0


@pytest.mark.slow
def test_nothing_is_written_unless_a_folder_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    results = compared()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="output must be given"):
        _ = results.folder
    results = compared(output=tmp_path / "a" / "b")
    assert Results.load(results.folder).settings == results.settings


@pytest.mark.slow
def test_its_report_is_inert_and_shows_the_rows(tmp_path: Path):
    rows = [f"<script>alert({i})</script> {HOSTILE_NAMES[0]}" for i in range(80)]
    compared(
        names=["ours", HOSTILE_NAMES[1], HOSTILE_NAMES[2]],
        output=tmp_path,
        name=HOSTILE_NAMES[0],
        class_names=["a", *HOSTILE_NAMES],
        test_rows=rows,
    )
    page = Page((tmp_path / "report.html").read_text())
    assert not page.all("script")
    assert "content" in page.text_of("th")
    assert [cell for cell in page.text_of("td") if cell in rows]
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(40))
    compared(output=tmp_path, test_rows=[picture] * 80)
    images = Page((tmp_path / "report.html").read_text()).all("img")
    assert images
    assert {(image["src"] or "")[:22] for image in images} == {"data:image/png;base64,"}


LOGITS, LABELS = RUNS[Job("hard", 0)].test
BAD: dict[str, tuple[Any, str]] = {
    "no mapping": ([], r"arms must map the names of two or more arms to their runs.*got list"),
    "one arm": ({"a": [{"test": (LOGITS, LABELS)}]}, r"two or more arms.*got \['a'\]"),
    "no runs": ({"a": [], "b": []}, r"a: must be a list with one result for each seed, got none"),
    "a result alone": ({"a": {"test": 1}, "b": {}}, r"a: must be a list with one result .*got dict"),
    "more runs": (
        {"a": [{"test": (LOGITS, LABELS)}], "b": [{"test": (LOGITS, LABELS)}] * 2},
        r"b: must have a run for each of the 1 runs of a, which it is paired with, got 2",
    ),
    "no test": ({"a": [{"val": (LOGITS, LABELS)}], "b": []}, r"a, run 0: .*got no test"),
    "another label": (
        {"a": [{"test": (LOGITS, LABELS)}], "b": [{"test": (LOGITS, LABELS.roll(1))}]},
        r"b, run 0: must have the rows of a, run 0 in the same order, got label 3 instead of 0 in test row 0",
    ),
    "fewer rows": (
        {"a": [{"test": (LOGITS, LABELS)}], "b": [{"test": (LOGITS[1:], LABELS[1:])}]},
        r"b, run 0: must have the rows and classes of a, run 0, got test logits \(79, 4\) and \(80, 4\)",
    ),
    "validation in one": (
        {"a": [{"test": (LOGITS, LABELS)}], "b": [{"test": (LOGITS, LABELS), "val": (LOGITS, LABELS)}]},
        r"a, run 0: must have 'val' like the other runs: give all or none",
    ),
    "NaN": (
        {"a": [{"test": (np.where(LOGITS.numpy() > 3, np.nan, LOGITS), LABELS)}], "b": [{}]},
        r"a, run 0: fit's 'test': logits must be finite.*got nan in row",
    ),
    "probabilities": (
        {"a": [{"test": (LOGITS.softmax(-1), LABELS)}], "b": [{}]},
        r"a, run 0: fit's 'test': must be logits, got probabilities",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str):
    arms, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        compare(arms)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"care must be one of overall, accuracy, .*, got 'speed'"):
        compared(care="speed")
    with pytest.raises(ValueError, match=r"class_names must be 4 strings, one for each class, got \['a'\]"):
        compared(class_names=["a"])


@pytest.mark.slow
def test_a_better_order_is_found_where_accuracy_is_the_same():
    """One arm is as right, and knows when it is not."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    right = torch.rand(400, generator=generator) < 0.7
    guess = torch.where(right, labels, (labels + 1) % 4)

    def run(seed: int, knows: float) -> dict[str, Any]:
        noise = torch.rand(400, generator=torch.Generator().manual_seed(10 + seed)).double()
        sure = 1 + noise + knows * right
        return {
            k: (sure.unsqueeze(1) * torch.nn.functional.one_hot(guess, 4), labels) for k in ("val", "test")
        }

    arms = {name: [run(seed, knows) for seed in SEEDS] for name, knows in {"a": 0.0, "b": 2.0}.items()}
    (setting,) = compare(arms, care="selective").settings
    assert answer(setting).startswith('Use "b"')
    assert compare(arms, care="accuracy").settings[0].chosen.differences["accuracy"].mean == 0


def test_an_undecided_answer_says_what_would_decide_it():
    (setting,) = compared(seeds=[0, 1]).settings
    d = setting.chosen.differences["accuracy"]

    def advice(parts: tuple[float, float, float], mean: float = 0.02) -> str:
        unsure = replace(d, mean=mean, low=-0.01, high=0.05, p=0.2, adjusted=0.8, parts=parts)
        chosen = replace(
            setting.chosen, differences={"accuracy": unsure, "nll_scaled": replace(unsure, mean=0.0)}
        )
        return " ".join(next_steps(replace(setting, seeds=5, arms=[setting.hard, chosen])))

    # Two comparisons at 95 % and 80 % power: z = 2.241 + 0.842, so a variance of (0.02 / 3.083)^2 = 4.21e-5.
    assert "119 seeds" not in advice((0.0, 0.0, 1e-3))  # more than anybody trains
    assert "12 seeds instead of 5 or 191 test rows instead of 80 would" in advice((0.0, 0.0, 1e-4))
    assert "12 seeds instead of 5 would probably decide it; more test rows alone would not" in advice(
        (1e-4, 0.0, 0.0)
    )
    assert "191 test rows instead of 80 would probably decide it; more seeds alone would not" in advice(
        (0.0, 1e-4, 0.0)
    )
    assert "No realistic number of seeds or test rows would decide it" in advice((1e-4, 1e-4, 0.0))
    assert "No realistic number of seeds or test rows would decide it" in advice((0.0, 0.0, 1e-4), mean=0.001)


@pytest.mark.parametrize("rows", [1, 2, 19])
def test_hardly_any_test_rows_decide_nothing(rows: int):
    labels = torch.arange(rows) % 2
    sure = 3.0 * torch.nn.functional.one_hot(labels, 2)
    arms = {"guess": [{"test": (0.5 * sure, labels)}], "sure": [{"test": (sure, labels)}]}
    for care in ("overall", "accuracy", "calibration", "selective"):
        (setting,) = compare(arms, care=care).settings
        assert answer(setting).startswith('Keep "guess". It is undecided')
        assert f"{rows} test row" in answer(setting)


def test_a_folder_that_is_anothers_is_left_alone(tmp_path: Path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"output must be another folder than that of a study, got .*with a study's results"
    ):
        compared(output=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"output must be a folder, got '.*file.x': .*file is a file"):
        compared(output=tmp_path / "file" / "x")
    assert (tmp_path / "study.json").read_text() == "{}"
