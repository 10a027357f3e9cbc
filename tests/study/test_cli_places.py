"""The command where something is missing: a package, or the signs of a terminal."""

import io
import subprocess
import sys
from types import ModuleType

import pytest

from labelsmooth.study.commands import output


@pytest.mark.parametrize(("encoding", "signs"), [("utf-8", "▲▼ é"), ("ascii", "+- ?"), ("cp437", "+- é")])
def test_better_and_worse_are_told_apart_on_every_terminal(
    encoding: str, signs: str, monkeypatch: pytest.MonkeyPatch
):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    output.show("▲▼ é")
    sys.stdout.flush()
    assert written.getvalue().decode(encoding).strip() == signs


WITHOUT_EXTRA = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "optuna":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from labelsmooth.__main__ import main
main()
"""


@pytest.mark.slow
def test_without_the_study_extra_it_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA, "study"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    said = "labelsmooth: optuna is missing; the command needs: pip install 'labelsmooth[study]'\n"
    assert done.stderr == said


def test_a_module_of_our_own_that_is_missing_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    from labelsmooth import __main__

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise ModuleNotFoundError("No module named 'labelsmooth.gone'", name="labelsmooth.gone")

    monkeypatch.setitem(
        sys.modules, "labelsmooth.study.commands.cli", Broken("labelsmooth.study.commands.cli")
    )
    with pytest.raises(ModuleNotFoundError, match=r"labelsmooth\.gone"):
        __main__.main()
