"""
Selective prediction: risk and coverage with smoothed targets
=============================================================

A selective classifier answers only where its confidence is high. Its risk is the share of
errors among the answered rows, its coverage the share of rows that it answers. On
ImageNet smoothing lowers the error and yet worsens the order by confidence, and logit
normalisation repairs it (Xia et al. 2025). This page looks for both effects on
scikit-learn's digits.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from labelsmooth import CrossEntropyLoss
from labelsmooth.calibration import fit_temperature

LOSSES = {"hard": CrossEntropyLoss(), "smoothed": CrossEntropyLoss(label_smoothing=0.4)}
SCORES = ("confidence", "scaled confidence", "normalised logit")
SPLITS = 10
images, labels = map(torch.tensor, load_digits(return_X_y=True))
images = images.float() / 16


def trained(criterion, x, y, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return model.requires_grad_(False)


# %%
# Three scores
# ------------
#
# Rows are answered in the order of a score: the confidence, the confidence after
# temperature scaling, or the largest logit after the logits of the row are centred and
# divided by their p-norm (Cattelan and Silva 2024). The area under the risk-coverage
# curve (AURC) is the mean risk over all coverages; lower is better.


def risks(score, wrong):
    """The risk at each coverage, from the row with the highest score to all rows."""
    errors = wrong[score.argsort(descending=True)].float().cumsum(0)
    return errors / torch.arange(1, len(errors) + 1)


def normalised(z, p):
    centred = z - z.mean(-1, keepdim=True)
    return centred.amax(-1) / centred.norm(p, dim=-1)


# %%
# Train and measure
# -----------------
#
# Ten splits with 200 training rows. The validation rows choose the temperature and p.

curves = {(name, score): [] for name in LOSSES for score in SCORES}
error = {name: torch.zeros(SPLITS) for name in LOSSES}
for seed in range(SPLITS):
    generator = torch.Generator().manual_seed(seed)
    train, val, test = torch.randperm(len(labels), generator=generator).split(
        [200, 400, 1197]
    )
    for name, criterion in LOSSES.items():
        model = trained(criterion, images[train], labels[train], seed)
        held_out, z = model(images[val]), model(images[test])
        temperature = fit_temperature(held_out, labels[val])
        missed = held_out.argmax(-1) != labels[val]
        p = min(
            range(1, 9),
            key=lambda p: risks(normalised(held_out, p), missed).mean().item(),
        )
        wrong = z.argmax(-1) != labels[test]
        error[name][seed] = wrong.float().mean()
        ranked = (
            z.softmax(-1).amax(-1),
            (z / temperature).softmax(-1).amax(-1),
            normalised(z, p),
        )
        for score, values in zip(SCORES, ranked, strict=True):
            curves[name, score].append(risks(values, wrong))

aurc = {key: 100 * torch.stack(runs).mean(1) for key, runs in curves.items()}
for name in LOSSES:
    print(f"{name}: error {error[name].mean():.1%}")
    for score in SCORES:
        print(f"  AURC by {score:18} {aurc[name, score].mean():.2f} %")

# %%
# Look
# ----
#
# The curves are means over the splits. Few errors remain at a low coverage, so the
# picture starts at 30 %.

figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True, layout="constrained")
for axis, name in zip(axes, LOSSES, strict=True):
    for score in SCORES:
        risk = 100 * torch.stack(curves[name, score]).mean(0)
        coverage = torch.linspace(0, 100, len(risk))
        axis.plot(
            coverage[len(risk) * 3 // 10 :], risk[len(risk) * 3 // 10 :], label=score
        )
    axis.set(title=name, xlabel="coverage in %")
axes[0].set_ylabel("risk in %")
axes[0].legend()
plt.show()

# %%
# The error is nearly the same with both targets. By the raw confidence, smoothing raises
# the AURC on some splits and lowers it on others:

change = aurc["smoothed", "confidence"] - aurc["hard", "confidence"]
worse = (change > 0).sum().item()
standard_error = (change.std() / SPLITS**0.5).item()
print(f"smoothing raises the AURC on {worse} of {SPLITS} splits")
print(f"mean change {change.mean():+.2f} points, standard error {standard_error:.2f}")
assert (error["smoothed"] - error["hard"]).mean().abs() < 0.01
assert 0 < worse < SPLITS
assert change.mean().abs() < 3 * standard_error

# %%
# The mean change is less than three standard errors, so this run does not show that
# smoothing worsens the order, as it does on ImageNet.
#
# The normalisation does what was found there. It orders the smoothed model's predictions
# better than the confidence does, on average. For the model with hard targets it is worse
# on every split. So the score, too, is chosen on validation rows, for each model.

gain = aurc["smoothed", "confidence"] - aurc["smoothed", "normalised logit"]
assert gain.mean() > 0.1
assert (aurc["hard", "normalised logit"] > aurc["hard", "confidence"]).all()

# %%
# The temperature changes no decision, but it changes the order of the rows, since it
# weighs the logits of the other classes differently. The smoothed model gains from it,
# too.

assert (
    aurc["smoothed", "scaled confidence"].mean()
    < aurc["smoothed", "confidence"].mean() - 0.05
)
