"""Without its extra an integration says what to install, and the package works."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "package"), [("transformers", "transformers"), ("lightning", "lightning"), ("trl", "trl")]
)
def test_what_to_install(module: str, package: str) -> None:
    absent = f"import sys, labelsmooth; sys.modules[{package!r}] = None; "
    run = [sys.executable, "-c", f"{absent} import labelsmooth.integrations.{module}"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    message = f"labelsmooth.integrations.{module} needs {package}: pip install 'labelsmooth[{module}]'"
    assert done.stderr.strip().endswith(message)
