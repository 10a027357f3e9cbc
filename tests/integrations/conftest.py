"""What tests of other people's packages share: nothing reaches the network."""

import os
from importlib import import_module

os.environ["HF_HUB_OFFLINE"] = "1"
if os.environ.get("LABELSMOOTH_REQUIRE_FRAMEWORKS"):  # a framework that is missing fails, where it would skip
    for framework in ("accelerate", "lightning", "peft", "transformers", "trl"):
        import_module(framework)
