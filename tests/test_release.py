"""What a release and its workflows say is what the package says."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import labelsmooth

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w-]+)==(\S+?);?(?: .*)?$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
YAML = sorted(
    path
    for path in [*ROOT.glob(".*.yaml"), ROOT / "CITATION.cff", *(ROOT / ".github").rglob("*.yml")]
    if path.is_file()
)


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_it_is_a_mapping(path: Path) -> None:
    assert isinstance(read(str(path)), dict)


def test_the_changelog_has_the_version() -> None:
    """Below what is not released, with its date, and each heading has its link."""
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert headings[:2] == ["Unreleased", labelsmooth.__version__]
    assert re.findall(r"^\[(.+?)\]: https://", text, re.MULTILINE) == headings


def test_the_citation_is_of_the_version() -> None:
    """Its required keys, and the release of the changelog."""
    cited = read("CITATION.cff")
    assert cited.keys() >= {"cff-version", "message", "title", "authors"}
    assert cited["version"] == labelsmooth.__version__
    heading = f"## [{cited['version']}] - {cited['date-released']}\n"
    assert heading in (ROOT / "CHANGELOG.md").read_text()
    assert cited["license"] == PROJECT["license"]
    assert cited["repository-code"] == PROJECT["urls"]["Source"]


def test_the_hooks_have_the_pinned_versions() -> None:
    ruff, local = read(".pre-commit-config.yaml")["repos"]
    assert ruff["rev"] == f"v{PINS['ruff']}"
    assert [hook["language"] for hook in local["hooks"]] == ["system"]  # pyright of the environment
    assert "pyright" in PINS


def test_the_matrix_has_what_is_claimed() -> None:
    """Every Python of the classifiers, and the oldest torch."""
    jobs = read(".github/workflows/tests.yml")["jobs"]
    matrix = jobs["fast"]["strategy"]["matrix"]["include"]
    pythons = {row["python"] for row in matrix}
    claimed = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert claimed
    assert pythons >= claimed
    (torch,) = [d for d in PROJECT["dependencies"] if d.startswith("torch>=")]
    versions = {row["torch"] for row in matrix}
    assert versions >= {f"{torch.removeprefix('torch>=')}.0", PINS["torch"], ""}


def test_only_the_job_that_publishes_may_write() -> None:
    for name in ("tests", "release"):
        workflow = read(f".github/workflows/{name}.yml")
        assert workflow["permissions"] == {"contents": "read"}
        own = {job: steps["permissions"] for job, steps in workflow["jobs"].items() if "permissions" in steps}
        assert own == ({"publish": {"id-token": "write"}} if name == "release" else {})


def test_the_readme_has_the_command_that_ci_runs() -> None:
    (pattern,) = re.findall(
        r"^command=\$\(grep -x '(.*)' README\.md\)$", (ROOT / ".ci/run").read_text(), re.M
    )
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if re.fullmatch(pattern, line)]) == 1
