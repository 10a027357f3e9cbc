"""Draw the README's picture from a finished study: python docs/picture.py FOLDER."""

import sys
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from PIL import Image

from labelsmooth.calibration import ReliabilityDisplay
from labelsmooth.study.trials.files import load

SETTING, STRENGTHS = "scarce-noisy", (0, 0.05, 0.1, 0.2)

(trials,) = (Path(sys.argv[1]) / "trials").glob(f"{SETTING}-*")
with mpl.rc_context({"font.size": 8}):
    figure = Figure(figsize=(11, 5.9), layout="constrained")
    axes = figure.subplots(2, len(STRENGTHS), sharex=True, sharey=True)
    for j, eps in enumerate(STRENGTHS):
        arm = f"ls-eps={eps:g}" if eps else "hard"
        runs = [load(path) for path in sorted(trials.glob(f"{arm}-seed*.safetensors"))]
        labels = torch.cat([run.test[1] for run in runs])
        for i, scaled in enumerate((False, True)):
            logits = [run.test[0] / (run.temperature if scaled else 1) for run in runs]
            ReliabilityDisplay.from_logits(torch.cat(logits), labels).plot(axes[i][j])
            axes[i][j].set(
                title=(f"eps = {eps:g}" if eps else "hard targets") if not scaled else "",
                xlabel="confidence" if scaled else "",
                ylabel=("accuracy, after temperature" if scaled else "accuracy") if j == 0 else "",
            )
    place = Path(__file__).with_name("reliability.png")
    figure.savefig(place, dpi=150)
    small = Image.open(place).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE)
    small.save(place, optimize=True)
