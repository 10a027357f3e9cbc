"""
Wrong labels: hard targets, smoothing and forward correction
============================================================

A share of the training labels is replaced by classes drawn at random. Smoothing limits
how far the model follows a wrong label. Forward correction (Patrini et al. 2017) is told
the share, and models the noise. The data are scikit-learn's digits; validation and test
labels are clean.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from labelsmooth import CrossEntropyLoss
from labelsmooth.calibration import accuracy, fit_temperature
from labelsmooth.formulas import ForwardCorrection

SHARES, SEEDS, ROWS = (0.0, 0.2, 0.4, 0.6), 3, 500
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
# Three losses, four shares of wrong labels, three splits of the data. All losses see the
# same rows, the same wrong labels and the same initial weights. The NLL, the plain cross
# entropy on clean test labels, is measured after temperature scaling, since raw
# probabilities of a smoothed model are under-confident by design.


def losses(share):
    return {
        "hard": CrossEntropyLoss(),
        "smoothed, eps = 0.4": CrossEntropyLoss(label_smoothing=0.4),
        "forward correction": CrossEntropyLoss(
            label_smoothing=share, formula=ForwardCorrection()
        ),
    }


right = {name: torch.zeros(len(SHARES), SEEDS) for name in losses(0.0)}
nll = {name: torch.zeros(len(SHARES), SEEDS) for name in losses(0.0)}
for seed in range(SEEDS):
    generator = torch.Generator().manual_seed(seed)
    train, val, test = torch.randperm(len(labels), generator=generator).split(
        [ROWS, 400, 897]
    )
    order, drawn = (
        torch.rand(ROWS, generator=generator),
        torch.randint(10, (ROWS,), generator=generator),
    )
    for i, share in enumerate(SHARES):
        noisy = torch.where(order < share, drawn, labels[train])
        for name, criterion in losses(share).items():
            model = trained(criterion, images[train], noisy, seed)
            temperature = fit_temperature(model(images[val]), labels[val])
            logits = model(images[test])
            right[name][i, seed] = accuracy(logits, labels[test])
            nll[name][i, seed] = nn.functional.cross_entropy(
                logits / temperature, labels[test]
            )

# %%
# Look
# ----
#
# Lines are means, bands go from the worst to the best split.

figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
for axis, found, title in zip(
    axes, (right, nll), ("test accuracy", "test NLL, scaled"), strict=True
):
    for name, values in found.items():
        axis.plot(SHARES, values.mean(1), marker="o", label=name)
        axis.fill_between(SHARES, values.amin(1), values.amax(1), alpha=0.2)
    axis.set(title=title, xlabel="share of replaced labels", xticks=SHARES)
axes[0].legend(loc="lower left", fontsize=9)
plt.show()
print(f"{'accuracy at the share':22}", "  ".join(f"{share:5.0%}" for share in SHARES))
for name, values in right.items():
    means = "  ".join(f"{value:.1%}" for value in values.mean(1).tolist())
    print(f"{name:22} {means}")

# %%
# Without noise the three are within three points; forward correction of no noise *is* the
# cross entropy. At a share of 0.2 smoothing is several points better than hard targets on
# every split, and about as good as the correction, which had to be told the share.

hard, smoothed, corrected = right.values()
torch.testing.assert_close(corrected[0], hard[0])
assert (smoothed[0] - hard[0]).abs().max() < 0.03
assert (smoothed[1] - hard[1]).min() > 0.02
assert (smoothed[1] - corrected[1]).mean().abs() < 0.04
assert nll["smoothed, eps = 0.4"][1].mean() < nll["hard"][1].mean()

# %%
# At 0.6 the correction is far ahead on every split, and smoothing gains less than half as
# much over hard targets.

assert (corrected[3] - smoothed[3]).min() > 0.05
assert (smoothed[3] - hard[3]).mean() < 0.5 * (corrected[3] - hard[3]).mean()

# %%
# These are small networks on easy images, and the noise is symmetric.
# :doc:`/how_to/noisy_labels` has the code for other cases.
