"""
The gradient of one smoothed row
================================

The gradient of the cross entropy with respect to the logits is the prediction minus the
target, :math:`q - p`. Smoothing changes only the target, so one row shows what it does.
Nothing is trained here.

The row has six ordered classes, such as grades, and the logits of a model that is sure of
the right one, class 2.
"""

import matplotlib.pyplot as plt
import torch

from labelsmooth import priors
from labelsmooth.functional import cross_entropy

K = 6
logits = torch.tensor([[-1.0, 1.0, 4.0, 0.5, -1.0, -2.0]])
label = torch.tensor([2])
prediction = logits.softmax(-1)[0]
hard = torch.nn.functional.one_hot(label, K)[0].float()
ordinal = priors.sord(K, alpha=2.0)

# %%
# Three targets
# -------------
#
# The hard target is 1 for the label. Uniform smoothing gives each class the same part of
# :math:`\epsilon`. The ordinal prior is a target of its own, which gives more to the
# neighbours of the label than to distant classes. ``backward`` computes the gradient.

losses = {
    "hard": (hard, {}),
    "uniform, eps = 0.2": (0.8 * hard + 0.2 / K, {"label_smoothing": 0.2}),
    "ordinal prior": (
        ordinal.probabilities[2].float(),
        {"label_smoothing": 1.0, "prior": ordinal},
    ),
}
gradients = {}
for name, (target, options) in losses.items():
    z = logits.clone().requires_grad_()
    cross_entropy(z, label, **options).backward()
    assert z.grad is not None
    gradients[name] = z.grad[0]
    torch.testing.assert_close(gradients[name], prediction - target)
    print(f"{name:20}", *(f"{value:+.3f}" for value in gradients[name].tolist()))

# %%
# What changes
# ------------
#
# A step of gradient descent lowers a logit with a positive gradient and raises one with a
# negative gradient.

figure, axes = plt.subplots(
    2, 3, figsize=(7.2, 4.6), sharex=True, sharey="row", layout="constrained"
)
classes = torch.arange(K)
for (above, below), (name, (target, _)) in zip(axes.T, losses.items(), strict=True):
    above.bar(classes - 0.2, prediction, 0.4, label="prediction q")
    above.bar(classes + 0.2, target, 0.4, label="target p")
    above.set_title(name)
    below.bar(classes, gradients[name], 0.6, color="tab:red")
    below.axhline(0, color="black", linewidth=0.8)
    below.set(xlabel="class", xticks=classes)
axes[0, 0].set_ylabel("probability")
axes[0, 0].legend(fontsize=8, loc="upper right")
axes[1, 0].set_ylabel("gradient q − p")
plt.show()

# %%
# With the hard target the gradient raises the label's logit, however sure the model is
# already. The prediction of the label is above both smoothed targets, so they reverse the
# sign: the next step makes the model *less* sure.

sign = {name: gradient[2].sign().item() for name, gradient in gradients.items()}
assert sign == {"hard": -1, "uniform, eps = 0.2": 1, "ordinal prior": 1}

# %%
# Uniform smoothing raises the logits of the distant classes, whose prediction is below
# their part of the target. The ordinal prior leaves the most distant class nearly as it
# is, and raises the neighbour whose prediction is too low, class 3.

uniform, by_rank = gradients["uniform, eps = 0.2"], gradients["ordinal prior"]
assert uniform[0] < 0
assert uniform[5] < 0
assert by_rank[5].abs() < 0.1 * uniform[5].abs()
assert by_rank[3] < 0

# %%
# The gradients of a row sum to 0 for every target: what one class gains, the others lose.

for gradient in gradients.values():
    torch.testing.assert_close(gradient.sum(), torch.tensor(0.0), atol=1e-6, rtol=0.0)
