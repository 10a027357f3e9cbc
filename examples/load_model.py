"""Load the models that `labelsmooth study` recommended, with their temperatures, from the study's folder."""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

from labelsmooth.study import DigitsFit
from labelsmooth.study.data.digits import digits

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "labelsmooth-study") / "models"
for path in sorted(folder.glob("*.json")):
    recommended = json.loads(path.read_text())
    model = DigitsFit(**recommended["fit"]).model()
    model.load_state_dict(load_file(path.with_suffix(".safetensors")))

    images, labels = digits().test
    probability = (model(images) / recommended["temperature"]).softmax(-1)
    confidence, prediction = probability.max(-1)
    accuracy = (prediction == labels).float().mean()
    print(
        f"{recommended['setting']}: {recommended['arm']}, T {recommended['temperature']:.2f}, "
        f"test accuracy {accuracy:.1%}, mean confidence {confidence.mean():.1%}"
    )
