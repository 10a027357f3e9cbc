"""What tests of other people's packages share: nothing reaches the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
