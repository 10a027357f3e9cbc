"""
A hierarchy of classes: milder mistakes, but more of them
=========================================================

A dog taken for a wolf is a milder mistake than a dog taken for a bus. A hierarchical
prior (Bertinetto et al. 2020) gives the classes of the label's own superclass more of the
target than the others. This page measures how many of the mistakes stay inside the
superclass, and what that costs.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from labelsmooth import CrossEntropyLoss, priors

GROUPS, MEMBERS, SEEDS = 4, 4, 6
K, INPUTS, TRAIN = GROUPS * MEMBERS, 24, 400


def drawn(seed):
    """Generated rows: a centre for each superclass, one near it for each class, noise."""
    generator = torch.Generator().manual_seed(seed)
    of_group = 0.7 * torch.randn(GROUPS, 1, INPUTS, generator=generator)
    centres = (
        of_group + torch.randn(GROUPS, MEMBERS, INPUTS, generator=generator)
    ).flatten(0, 1)
    y = torch.randint(K, (TRAIN + 2000,), generator=generator)
    return centres[y] + 2 * torch.randn(len(y), INPUTS, generator=generator), y


def trained(criterion, x, y, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(INPUTS, 64), nn.ReLU(), nn.Linear(64, K))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return model.requires_grad_(False)


# %%
# The targets
# -----------
#
# The tree names the superclasses and their classes. The row of a class is its whole
# target. Uniform smoothing is given the strength that takes just as much probability from
# the label.

tree = {f"group {g}": [f"class {g}.{m}" for m in range(MEMBERS)] for g in range(GROUPS)}
prior = priors.hierarchy(tree, beta=8.0)
off_label = 1 - prior.probabilities[0, 0].item()
LOSSES = {
    "hard": CrossEntropyLoss(),
    "uniform": CrossEntropyLoss(label_smoothing=off_label * K / (K - 1)),
    "hierarchical": CrossEntropyLoss(label_smoothing=1.0, prior=prior),
}
figure, axis = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
picture = axis.imshow(prior.probabilities.log10(), cmap="viridis")
ticks = range(0, K, MEMBERS)
axis.set(title="hierarchical targets", xlabel="class", ylabel="label")
axis.set(xticks=ticks, yticks=ticks)
figure.colorbar(picture, label="log10 of the probability")
plt.show()

# %%
# Train and measure
# -----------------
#
# The output and the bars are means over six seeds, the black lines standard deviations.

scores = {name: torch.zeros(SEEDS, 3) for name in LOSSES}
for seed in range(SEEDS):
    x, y = drawn(seed)
    for name, criterion in LOSSES.items():
        predicted = trained(criterion, x[:TRAIN], y[:TRAIN], seed)(x[TRAIN:]).argmax(-1)
        right, near = (
            predicted == y[TRAIN:],
            predicted // MEMBERS == y[TRAIN:] // MEMBERS,
        )
        scores[name][seed] = torch.stack(
            [right.float().mean(), near[~right].float().mean(), near.float().mean()]
        )

MEASURES = (
    "accuracy",
    "mistakes inside\nthe superclass",
    "accuracy of\nthe superclass",
)
print(f"{'':13} accuracy  inside  superclass")
figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for i, (name, values) in enumerate(scores.items()):
    axis.bar(
        torch.arange(3) + 0.27 * (i - 1),
        values.mean(0),
        0.25,
        yerr=values.std(0),
        capsize=3,
        label=name,
    )
    print(f"{name:13}", "".join(f"{value:>9.1%}" for value in values.mean(0).tolist()))
axis.set(xticks=range(3), xticklabels=MEASURES, ylabel="share", ylim=(0, 1))
axis.legend(loc="upper left", ncols=3)
plt.show()

# %%
# More of the mistakes of the hierarchical model stay inside the superclass, on average
# and for most seeds, than of the others.

accuracy, inside, of_group = (
    {name: values[:, i] for name, values in scores.items()} for i in range(3)
)
for other in ("hard", "uniform"):
    assert (inside["hierarchical"] - inside[other]).mean() > 0.03
    assert (inside["hierarchical"] > inside[other]).float().mean() > 0.6

# %%
# But its accuracy is lower than with hard targets, and so the superclass itself is *not*
# right more often. The prior trades the number of mistakes for their severity, which is
# also what Bertinetto et al. report. It is worth its price only if distant mistakes cost
# much more than near ones.

assert accuracy["hierarchical"].mean() < accuracy["hard"].mean() - 0.02
assert of_group["hierarchical"].mean() < of_group["hard"].mean() + 0.01
