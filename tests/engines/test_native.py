"""The kernel is loaded where it was built, changes nothing else, and has a reason where it is absent."""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from labelsmooth import _engines, engines
from labelsmooth._engines import native

# Fast-math in a library switches denormals off in every thread that its loading starts from.
PROBE = """
import json, threading
import torch

def denormals():
    one = float("1")  # read at run time: Python's compiler would multiply constants itself
    double, single = torch.tensor([1e-310], dtype=torch.float64), torch.tensor([1e-40])
    return [float("1e-310") * one > 0, (double * one > 0).item(), (single * one > 0).item()]

def everywhere():
    found = [denormals()]
    thread = threading.Thread(target=lambda: found.append(denormals()))
    thread.start()
    thread.join()
    return found

states = [everywhere()]
{statements}
print(json.dumps(states))
"""
THEY_STAY = [[True] * 3] * 2
LOAD_AND_CALL = """
from labelsmooth._engines import native
library = native.library()
states.append(everywhere())
library.labelsmooth_abi()
states.append(everywhere())
"""


def states(statements: str) -> list[list[list[bool]]]:
    """Whether denormals stay, in two threads and three kinds, before and after what the statements do."""
    run = [sys.executable, "-c", PROBE.format(statements=statements)]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def built() -> None:
    if native.library() is None and os.environ.get("LABELSMOOTH_REQUIRE_NATIVE") != "1":
        pytest.skip(f"no kernel: {native.absence()}")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state in which nothing has been loaded; what has been stays as it is for the other tests."""
    monkeypatch.setattr(native, "_load", cache(native._load.__wrapped__))
    for name in ("LABELSMOOTH_NATIVE", "LABELSMOOTH_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("built")
def test_library_is_loaded() -> None:
    library = native.library()
    assert library is not None, native.absence()
    assert native.absence() is None
    assert library.labelsmooth_abi() == native.ABI
    assert native.library() is library


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_denormals_stay() -> None:
    assert states(LOAD_AND_CALL) == [THEY_STAY] * 3


@pytest.mark.slow
def test_probe_sees_flushed_denormals() -> None:
    before, after = states("torch.set_flush_denormal(True); states.append(everywhere())")
    assert before == THEY_STAY
    assert not any(after[0])


@pytest.mark.usefixtures("fresh")
def test_absence_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELSMOOTH_NATIVE", "0")
    assert native.library() is None
    assert native.absence() == "switched off by LABELSMOOTH_NATIVE=0"


@pytest.mark.usefixtures("fresh")
def test_absence_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engines, "__path__", [str(tmp_path / "sources"), str(tmp_path / "compiled")])
    assert native.library() is None
    reason = native.absence()
    assert reason is not None
    assert reason.startswith(f"not built with this install: no {native.NAME} in {tmp_path / 'sources'}, ")
    assert str(tmp_path / "compiled") in reason


@pytest.mark.usefixtures("fresh")
def test_absence_not_loadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / native.NAME
    path.write_bytes(b"no library")
    with pytest.raises(OSError) as of_the_system:  # noqa: PT011 - the words are the system's own
        ctypes.CDLL(str(path))
    monkeypatch.setattr(_engines, "__path__", [str(tmp_path)])
    assert native.library() is None
    assert native.absence() == f"{path} cannot be loaded: {of_the_system.value}"


@pytest.fixture(scope="session")
def compiler() -> str:
    found = os.environ.get("CXX") or shutil.which("c++")
    if not found or sys.platform == "win32":
        pytest.skip("no C++ compiler")
    return found


def built_of(agreed: dict[str, int | str], compiler: str, path: Path) -> None:
    """A library that has no more than what is agreed on."""
    source = ""
    for what, value in agreed.items():
        kind, text = (
            ("const char*", f'"{value}"') if isinstance(value, str) else ("long long", f"{value + 1} - 1")
        )
        source += f'extern "C" {kind} labelsmooth_{what.lower().replace(" ", "_")}() {{ return {text}; }}\n'
    run = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(path)]
    subprocess.run(run, input=source, text=True, check=True)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("what", native.AGREED)
def test_absence_stale(what: str, compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = native.AGREED[what]
    if isinstance(ours, int):
        theirs = ours + 8
    else:
        first, second, *more = ours.split(", ")
        theirs = ", ".join((second, first, *more))
    path = tmp_path / native.NAME
    built_of(native.AGREED | {what: theirs}, compiler, path)
    monkeypatch.setattr(_engines, "__path__", [str(tmp_path)])
    assert native.library() is None
    assert native.absence() == f"{path} has {what} {theirs} and this version needs {ours}: install again"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    "has", [{}, {"ABI": native.ABI}, native.AGREED], ids=["nothing", "no size", "no loss"]
)
def test_absence_lacking(
    has: dict[str, int | str], compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / native.NAME
    built_of(has, compiler, path)
    monkeypatch.setattr(_engines, "__path__", [str(tmp_path)])
    assert native.library() is None
    assert (native.absence() or "").startswith(f"{path} cannot be loaded: ")


SLOWLY = """
import pathlib, warnings
import torch

is_file = pathlib.Path.is_file
pathlib.Path.is_file = lambda path: not path.name.startswith("_native.cpu") and is_file(path)
from labelsmooth.functional import cross_entropy, linear_cross_entropy

z, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
calls = [
    lambda: cross_entropy(z, y, label_smoothing=0.1, engine="reference"),
    lambda: torch.func.vmap(cross_entropy)(z, y),
    lambda: cross_entropy(z.to("meta"), y.to("meta")),
    lambda: %s,
    lambda: cross_entropy(z, y, label_smoothing=0.1),
    lambda: linear_cross_entropy(z, torch.randn(5, 3), y, label_smoothing=0.1),
]
counts = []
for call in calls:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        call()
    counts.append([(w.category.__name__, str(w.message), w.filename) for w in told])
print(__import__("json").dumps(counts))
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy(z, y)", "linear_cross_entropy(z, torch.randn(5, 3), y)"])
def test_absence_is_told_once(loss: str) -> None:
    """Where the kernel would serve; neither where another engine is asked for, nor where it could not."""
    environment = {name: value for name, value in os.environ.items() if name != "LABELSMOOTH_NATIVE"}
    run = [sys.executable, "-c", SLOWLY % loss]
    for switch, expected in (({}, 1), ({"LABELSMOOTH_NATIVE": "0"}, 0)):
        done = subprocess.run(run, env=environment | switch, capture_output=True, text=True, check=True)
        *silent, first, second, third = json.loads(done.stdout)
        assert not any(silent)
        assert len(first) == expected
        assert not second
        assert not third
        for category, message, filename in first:
            assert category == "RuntimeWarning"
            assert message.startswith(
                "labelsmooth runs without its compiled kernel, on plain torch, which is"
            )
            assert "not built with this install" in message
            assert "LABELSMOOTH_NATIVE=0" in message
            assert filename == "<string>"  # where the loss is called


@pytest.mark.usefixtures("fresh")
def test_absence_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert native.absence() == "not written for Windows"


RUNS = """
from labelsmooth.engines import available
print(available()["dense"])
"""


def available_with(isa: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LABELSMOOTH_ISA", isa)
    run = subprocess.run([sys.executable, "-c", RUNS], capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_available_names_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines.available()["dense"] == engines.Availability(True, native.isa())
    baseline = {"x86_64": "sse2", "aarch64": "neon", "arm64": "neon"}.get(platform.machine(), "baseline")
    assert native.isa() in ("avx512", "avx2", baseline)
    assert available_with(baseline, monkeypatch) == baseline
    assert available_with(native.isa(), monkeypatch) == native.isa()


@pytest.mark.slow
@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("isa", ["mmx", "AVX2", "sse2 "])
def test_unknown_instruction_set(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = available_with(isa, monkeypatch)
    assert found.startswith(f"absent, LABELSMOOTH_ISA={isa} is no instruction set that ")
