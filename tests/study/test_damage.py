"""Files that are not as they were written, and a disk or a database that takes none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from labelsmooth.study.trials.files import save

from . import made_up
from .made_up import bare, counted, ledger, study


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "another's": lambda path: save_file({"weight": torch.zeros(2)}, path),
    "another's, with a key of ours": lambda path: save_file({"a": torch.zeros(2)}, path, {"run": "[]"}),
    "one bit": flip,
}


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_trained_again_and_that_is_said_once(
    damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    fit, calls = counted()
    first = study(fit, tmp_path)
    (tmp_path / "results.json").unlink()
    path = next(tmp_path.glob("trials/*/ls-eps=0.1-seed1.safetensors"))
    DAMAGES[damage](path)
    calls.clear()
    assert study(fit, tmp_path, progress=True) == first
    assert calls == [(0.1, 1)]
    said = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{path} is damaged")
    assert said[0].endswith("; training it again")


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("part", [slice(0, 50), slice(100, 4096), slice(4096, None)])
def test_a_damaged_database_is_named_and_may_be_deleted(part: slice, tmp_path: Path):
    fit, calls = counted()
    first = study(fit, tmp_path)
    (tmp_path / "results.json").unlink()
    file = tmp_path / "trials.db"
    content = bytearray(file.read_bytes())
    content[part] = b"x" * len(content[part])
    file.write_bytes(content)
    calls.clear()
    with pytest.raises(ValueError, match=f"^{file} cannot be used .* delete it: the saved runs are kept"):
        study(fit, tmp_path)
    file.unlink()
    assert study(fit, tmp_path) == first
    assert calls == []


def test_a_full_disk_is_named(tmp_path: Path):
    resource: Any = pytest.importorskip("resource")
    path = tmp_path / "run.safetensors"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=f"^could not write {path}, is there space left on the disk?"):
            save(path, bare(made_up.hard(), 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("no_report")
def test_a_full_disk_ends_the_study_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fit, calls = counted()
    monkeypatch.setattr("labelsmooth.study.trials.files.save_file", fail)
    with pytest.raises(OSError, match=r"could not write .*No space left on device"):
        study(fit, tmp_path, seeds=5)
    assert len(calls) == 1


def test_the_folder_must_be_named():
    with pytest.raises(ValueError, match="output must name a folder, got ''"):
        study(bare, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "storage",
    [
        "nosuch://me:s3cret@host/x",
        "nosuch://me:s3cret@s3cret@host/x",
        "me:s3cret@host",
        "nosuch://host/x?password=s3cret&x=1",
        "postgresql+pg8000://me:s3cret@localhost/x",
    ],
)
def test_a_password_is_never_shown(storage: str, tmp_path: Path):
    with pytest.raises(ValueError, match="storage must be a database URL that opens, got") as caught:
        ledger(tmp_path, storage=storage).open()
    assert "***" in str(caught.value)
    assert "s3cret" not in str(caught.getrepr(style="short"))
