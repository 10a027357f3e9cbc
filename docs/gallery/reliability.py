"""
Reliability before and after temperature scaling
================================================

A classifier is calibrated if, of the rows on which it is 80 % confident, it classifies 80
% correctly. Here a small network is trained on 200 of scikit-learn's digits, a fifth of
whose labels are wrong, with hard and with smoothed targets. Both models are judged before
and after temperature scaling (Guo et al. 2017). The validation and test labels are clean.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from labelsmooth import CrossEntropyLoss
from labelsmooth.calibration import (
    ReliabilityDisplay,
    accuracy,
    expected_calibration_error,
    fit_temperature,
    noise_floor,
)

images, labels = map(torch.tensor, load_digits(return_X_y=True))
images = images.float() / 16


def trained(criterion, x, y, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return model.requires_grad_(False)


# %%
# Train
# -----
#
# Five splits of the data give five models for each target. Each model gets a temperature
# of its own, fitted on the validation rows. The predictions on the test rows are pooled.

LOSSES = {"hard": CrossEntropyLoss(), "smoothed": CrossEntropyLoss(label_smoothing=0.2)}
predictions = {name: [] for name in LOSSES}
for seed in range(5):
    generator = torch.Generator().manual_seed(seed)
    train, val, test = torch.randperm(len(labels), generator=generator).split(
        [200, 400, 1197]
    )
    wrong = torch.rand(200, generator=generator) < 0.2
    noisy = torch.where(
        wrong, torch.randint(10, (200,), generator=generator), labels[train]
    )
    for name, criterion in LOSSES.items():
        model = trained(criterion, images[train], noisy, seed)
        temperature = fit_temperature(model(images[val]), labels[val])
        logits = model(images[test])
        predictions[name].append((logits, logits / temperature, labels[test]))

# %%
# Judge
# -----
#
# The expected calibration error (ECE) is the mean gap between confidence and accuracy.
# Its noise floor is the ECE that a perfectly calibrated model would show by chance.

gap, ece = {}, {}
figure, axes = plt.subplots(
    2, 2, figsize=(6.4, 6.4), sharex=True, sharey=True, layout="constrained"
)
for row, (name, runs) in zip(axes, predictions.items(), strict=True):
    raw, scaled, y = map(torch.cat, zip(*runs, strict=True))
    for axis, logits, when in zip(row, (raw, scaled), ("before", "after"), strict=True):
        ReliabilityDisplay.from_logits(logits, y, num_bins=10).plot(axis)
        axis.set_title(f"{name}, {when}")
        confidence = logits.softmax(-1).amax(-1).mean().item()
        right = accuracy(logits, y)
        gap[name, when] = confidence - right
        ece[name, when] = expected_calibration_error(logits, y)
        floor = noise_floor(logits, draws=100)
        print(f"{name:9} {when:7} acc. {right:.1%}  conf. {confidence:.1%}", end="  ")
        print(f"ECE {ece[name, when]:.1%}  (noise floor {floor:.1%})")
plt.show()

# %%
# Solid red bars are over-confident, hatched blue ones under-confident; the number is that
# of the rows. Before scaling, the model with hard targets is over-confident. The smoothed
# model is under-confident by more: its targets alone hold back 18 points of confidence.

assert gap["hard", "before"] > 0.05
assert gap["smoothed", "before"] < -0.05
assert ece["smoothed", "before"] > ece["hard", "before"]

# %%
# One number, fitted on 400 clean rows, removes most of both errors. The confidence of
# both models is then within a few points of their accuracy, so only the comparison
# *after* scaling says which of two models has the better probabilities.

for name in LOSSES:
    assert abs(gap[name, "after"]) < 0.05
    assert ece[name, "after"] < 0.5 * ece[name, "before"]
