"""
Ordinal labels: a prior over the ranks against uniform smoothing
================================================================

If the classes have an order, a prediction of 4 for a 5 is a smaller mistake than a
prediction of 1. Uniform smoothing treats all mistakes alike; an ordinal prior (Díaz and
Marathe 2019) gives more probability to near ranks. The data are scikit-learn's diabetes
table: the progression of the disease after a year, cut into six grades, 0 to 5, of equal
size.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_diabetes
from torch import nn

from labelsmooth import CrossEntropyLoss, priors

K, SPLITS = 6, 12
measurements, progression = map(torch.tensor, load_diabetes(return_X_y=True))
x = (measurements / measurements.std(0)).float()
levels = torch.arange(1, K, dtype=torch.float64) / K
edges = torch.quantile(progression, levels)
grades = torch.bucketize(progression, edges)


def trained(criterion, x, y, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, K))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return model.requires_grad_(False)


# %%
# The targets
# -----------
#
# A row of the ordinal prior includes the label's own probability, so it is the whole
# target: the strength is 1.

sord = priors.sord(K, "squared", alpha=0.5)
LOSSES = {
    "hard": CrossEntropyLoss(),
    "uniform": CrossEntropyLoss(label_smoothing=0.3),
    "ordinal": CrossEntropyLoss(label_smoothing=1.0, prior=sord),
}
print("target of grade 2:", *(f"{p:.2f}" for p in sord.probabilities[2].tolist()))

# %%
# Train and measure
# -----------------
#
# Twelve random halves of the table are for training, the others for the test. The mean
# absolute error (MAE) counts the ranks between prediction and grade. A predicted
# distribution is unimodal if it rises to one peak and then falls.


def split(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(len(x), generator=generator).split([221, 221])


def unimodal(p):
    rising = (p.diff(dim=-1) > 0).int()
    return (rising.diff(dim=-1) <= 0).all(-1)


found = {name: torch.zeros(SPLITS, 3) for name in LOSSES}
shown = split(0)[1][:3]  # three test rows of the first split
predicted = {}
for seed in range(SPLITS):
    train, test = split(seed)
    for name, criterion in LOSSES.items():
        p = trained(criterion, x[train], grades[train], seed)(x[test]).softmax(-1)
        y = grades[test]
        error = (p.argmax(-1) - y).abs().float()
        found[name][seed] = torch.stack(
            [error.mean(), (error == 0).float().mean(), unimodal(p).float().mean()]
        )
        predicted.setdefault(name, p[:3])

mae, accuracy, peaks = (
    {name: values[:, i] for name, values in found.items()} for i in range(3)
)
for name in LOSSES:
    print(f"{name:8} MAE {mae[name].mean():.2f}", end="  ")
    print(f"acc. {accuracy[name].mean():.1%}  unimodal {peaks[name].mean():.0%}")

# %%
# Look
# ----
#
# The predictions for three test rows of the first split, and the MAE of all splits.

figure, axes = plt.subplots(2, 2, figsize=(6.4, 5.2), layout="constrained")
for i, axis in enumerate(axes.flat[:3]):
    for name, p in predicted.items():
        axis.plot(range(K), p[i], marker="o", markersize=4, label=name)
    axis.set(
        title=f"a row of grade {grades[shown[i]]}",
        xlabel="grade",
        ylabel="probability",
        xticks=range(K),
    )
axes[0, 0].legend()
axes[1, 1].boxplot([mae[name].numpy() for name in LOSSES], tick_labels=list(LOSSES))
axes[1, 1].set_title("MAE, 12 splits")
plt.show()

# %%
# The ordinal prior has the lowest MAE, on average and on most splits. Uniform smoothing
# brings no such gain: it knows nothing of the order.

assert mae["ordinal"].mean() < mae["hard"].mean() - 0.03
assert (mae["ordinal"] < mae["hard"]).float().mean() > 0.6
assert mae["uniform"].mean() > mae["hard"].mean() - 0.02

# %%
# The shape of the predictions changes more than their error. With the ordinal prior
# nearly all have one peak; with hard and with uniform targets most have several.

assert peaks["ordinal"].mean() > 0.8
assert peaks["hard"].mean() < 0.5
assert peaks["uniform"].mean() < 0.5

# %%
# :doc:`/how_to/ordinal` has the other ordinal priors. The strength and the shape are
# chosen on validation data, by the MAE if that is what counts.
