"""
Smoothing tightens the clusters of the penultimate layer
========================================================

Müller et al. (2019) look at the features before the last linear layer. With smoothed
targets the features of a class form a tighter cluster. This page repeats their projection
on scikit-learn's digits, and measures the clusters with a ratio: the scatter within the
classes divided by the scatter between their means.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from labelsmooth import CrossEntropyLoss

LOSSES = {"hard": CrossEntropyLoss(), "smoothed": CrossEntropyLoss(label_smoothing=0.1)}
SEEDS, SHOWN = 3, [3, 8, 9]
images, labels = map(torch.tensor, load_digits(return_X_y=True))
images = images.float() / 16


def trained(criterion, x, y, seed, depth):
    torch.manual_seed(seed)
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(nn.Sequential(*hidden), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(150):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return model.requires_grad_(False)


def scatter_ratio(features, y):
    """The scatter within the classes divided by the scatter between their means."""
    means = torch.stack([features[y == k].mean(0) for k in y.unique()])
    within = (features - means[y.unique(return_inverse=True)[1]]).square().sum(1).mean()
    return (within / (means - means.mean(0)).square().sum(1).mean()).item()


# %%
# Train
# -----
#
# Networks with one and with three hidden layers, on three splits of 400 rows for training
# and the rest for the test.

ratios = {(name, depth): [] for name in LOSSES for depth in (1, 3)}
examples = {}
for seed in range(SEEDS):
    train, test = torch.randperm(
        len(labels), generator=torch.Generator().manual_seed(seed)
    ).split([400, 1397])
    for name, depth in ratios:
        model = trained(LOSSES[name], images[train], labels[train], seed, depth)
        train_and_test = [
            (model[0](images[rows]), labels[rows]) for rows in (train, test)
        ]
        ratios[name, depth].append([scatter_ratio(*part) for part in train_and_test])
        examples[name, depth] = (model[1].weight, train_and_test)

# %%
# Project
# -------
#
# The last layer has a weight vector, or template, for each class. The plane through the
# templates of three classes shows how features of these classes lie to them.

figure, axes = plt.subplots(
    2, 2, figsize=(6.4, 6.4), sharex="row", sharey="row", layout="constrained"
)
for row, name in zip(axes, LOSSES, strict=True):
    weight, parts = examples[name, 3]
    first, second, third = weight[SHOWN]
    plane, _ = torch.linalg.qr(torch.stack([second - first, third - first], 1))
    for axis, (features, y), rows in zip(
        row, parts, ("training rows", "test rows"), strict=True
    ):
        for k in SHOWN:
            u, v = ((features[y == k] @ plane).T).numpy()
            axis.scatter(u, v, s=8, alpha=0.6, label=f"digit {k}")
        axis.set(title=f"{name}, {rows}", xticks=[], yticks=[])
axes[0, 0].legend()
plt.show()

# %%
# Measure
# -------
#
# The ratio takes all ten classes and all 64 dimensions, so it does not depend on the
# choice of the plane.

mean = {key: torch.tensor(found).mean(0).tolist() for key, found in ratios.items()}
for (name, depth), (on_train, on_test) in mean.items():
    print(
        f"{depth} hidden, {name:8} training rows {on_train:.2f}  test rows {on_test:.2f}"
    )

# %%
# With three hidden layers the ratio is smaller with smoothing on every split, on the
# training rows and on the test rows, which the network has not seen. The effect is larger
# on the training rows.

difference = {
    depth: torch.tensor(ratios["smoothed", depth]) / torch.tensor(ratios["hard", depth])
    for depth in (1, 3)
}
assert (difference[3] < 1).all()
assert difference[3][:, 0].mean() < difference[3][:, 1].mean()

# %%
# With one hidden layer it is *larger* with smoothing, on every split: the effect depends
# on the network.

assert (difference[1] > 1).all()

# %%
# Tight clusters forget how the examples of a class differ. This is how Müller et al.
# explain that a smoothed teacher distils worse, and Kornblith et al. (2021) that its
# features transfer worse: :doc:`/explanation/theory`.
