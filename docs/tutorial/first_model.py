"""
Tutorial: from cross entropy to a calibrated model
==================================================

In ten minutes you train a classifier on a table, replace its loss, judge both models,
correct their confidence, and let a study decide whether the difference is more than luck.
You need PyTorch and ``pip install "labelsmooth[study]"``. Run the blocks in order in one
session or notebook. The output and the picture on this page are from the build of the
site.
"""

# %%
# 1. Train with cross entropy
# ---------------------------
#
# The table is scikit-learn's digits: 64 numbers per row and ten classes. 300 rows are for
# training, 500 for validation, the rest for the test. With your own table, ``x`` holds
# the numbers as float32 and ``y`` the classes as integers from 0.

import torch
from sklearn.datasets import load_digits
from torch import nn

table, classes = load_digits(return_X_y=True)
x, y = torch.tensor(table / 16, dtype=torch.float32), torch.tensor(classes)
shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
train, val, test = shuffled.split([300, 500, 997])


def trained(criterion, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(40):
        for batch in train[torch.randperm(len(train))].split(50):
            optimizer.zero_grad()
            loss = criterion(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    return model.eval()


hard = trained(nn.CrossEntropyLoss())

# %%
# 2. Replace the loss
# -------------------
#
# ``CrossEntropyLoss`` of labelsmooth takes the arguments of torch's. With
# ``label_smoothing=0.1`` the target of a row is 0.91 for its class and 0.01 for each
# other class, where it was 1 and 0:

from labelsmooth import CrossEntropyLoss

smoothed = trained(CrossEntropyLoss(label_smoothing=0.1))

# %%
# Nothing else changes. The training loss of this model cannot fall below 0.50: that is
# the smallest value a smoothed loss has with ten classes (:doc:`why
# </how_to/read_the_loss>`). So do not compare the training losses. Compare on test rows,
# with hard labels.

# %%
# 3. Judge both models
# --------------------
#
# Accuracy says how often the model is right. The NLL (the plain cross entropy) and the
# expected calibration error (ECE) judge its probabilities: the ECE is the mean gap
# between confidence and accuracy.

from labelsmooth.calibration import accuracy, expected_calibration_error, noise_floor


def judged(name, logits, labels):
    nll = nn.functional.cross_entropy(logits, labels).item()
    ece = expected_calibration_error(logits, labels)
    confidence = logits.softmax(-1).amax(-1).mean().item()
    right = accuracy(logits, labels)
    print(f"{name:18} acc. {right:.1%}  conf. {confidence:.1%}", end="  ")
    print(f"NLL {nll:.3f}  ECE {ece:.1%}")
    return nll, ece


with torch.no_grad():
    of_hard, of_smoothed = hard(x[test]), smoothed(x[test])
before_hard = judged("hard", of_hard, y[test])
before_smoothed = judged("smoothed", of_smoothed, y[test])

# %%
# The smoothed model is under-confident: its targets allow a confidence of 91 % on the
# training rows, and it has less on the test rows. By the raw NLL and ECE it is the worse
# model. But confidence is easy to correct, so this comparison is not fair yet.

# %%
# 4. Correct the confidence
# -------------------------
#
# Temperature scaling divides the logits by one number, fitted on validation rows. It
# changes no decision. Fit one for each model, and compare again:

from labelsmooth.calibration import fit_temperature

with torch.no_grad():
    T_hard = fit_temperature(hard(x[val]), y[val])
    T_smoothed = fit_temperature(smoothed(x[val]), y[val])
print(f"T = {T_hard:.2f} for hard targets, {T_smoothed:.2f} for smoothed ones")
after_hard = judged("hard, scaled", of_hard / T_hard, y[test])
after_smoothed = judged("smoothed, scaled", of_smoothed / T_smoothed, y[test])
floor = noise_floor(of_hard / T_hard)
print(f"noise floor of the ECE: {floor:.1%}")

# %%
# A temperature below 1 raises the confidence, one above 1 lowers it. The noise floor is
# the ECE that a perfectly calibrated model would show by chance on so many rows;
# a smaller difference may be chance. Here both models are calibrated after scaling, and
# the smoothed one has the better NLL.

assert before_smoothed[0] > before_hard[0]
assert before_smoothed[1] > before_hard[1]
assert T_smoothed < T_hard
assert after_smoothed[0] < after_hard[0]
assert max(after_hard[1], after_smoothed[1]) < 2 * floor

# %%
# 5. Look at it
# -------------
#
# A reliability diagram shows the accuracy at each confidence. A calibrated model follows
# the diagonal.

import matplotlib.pyplot as plt

from labelsmooth.calibration import ReliabilityDisplay

figure, (left, right) = plt.subplots(
    1, 2, figsize=(7.2, 3.8), sharey=True, layout="constrained"
)
ReliabilityDisplay.from_logits(of_smoothed, y[test], num_bins=10).plot(left)
ReliabilityDisplay.from_logits(of_smoothed / T_smoothed, y[test], num_bins=10).plot(right)
left.set_title("smoothed")
right.set_title("smoothed, scaled")
plt.show()

# %%
# 6. Ask whether it is more than luck
# -----------------------------------
#
# One run with one seed is an anecdote. A study trains both again with several seeds,
# paired, chooses the strength and the temperature on validation rows, and gives
# intervals. It takes a function that trains one model with the given criterion, and a
# folder for the runs:

import tempfile
from pathlib import Path

from labelsmooth import study

folder = Path(tempfile.mkdtemp())  # or a folder of your own


def fit(criterion, seed):
    model = trained(criterion, seed)
    with torch.no_grad():
        return {"val": (model(x[val]), y[val]), "test": (model(x[test]), y[test])}


results = study.run(
    fit,
    eps=[0.1],
    seeds=3,
    workers=1,
    extend=False,
    progress=False,
    output=folder / "study",
)
print(results)

# %%
# Three seeds cannot tell: the interval of the gain in NLL includes 0. The advised
# temperature is fitted on the validation rows, as it has to be, so the test rows can get
# a little worse by it.
#
# For an answer you rely on use five seeds or more and several strengths: ``study.run(fit,
# eps=[0.05, 0.1, 0.2], seeds=5)``.

# %%
# 7. Study your own file
# ----------------------
#
# For a table in a file no code is needed. The study trains a small network on it:
#
# .. code-block:: none
#
#    labelsmooth study --data flowers.csv --label species
#
# The same in Python, on a file written for this page:

import csv

with open(folder / "digits.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow([*(f"pixel{k}" for k in range(64)), "digit"])
    rows.writerows(
        [*map(int, row), int(label)] for row, label in zip(table, classes, strict=True)
    )

of_file = study.fit_of(folder / "digits.csv", label="digit")
print(study.plan(of_file, seeds=5))

# %%
# ``plan`` lists the runs and estimates their time; nothing is written.
# ``study.run(of_file, seeds=5)`` trains them, and ``labelsmooth-study/report.html`` has
# every figure with its interval.

# %%
# 8. Use the model
# ----------------
#
# Keep the temperature with the model, and divide by it wherever you need probabilities:

torch.save(
    {"model": smoothed.state_dict(), "temperature": T_smoothed}, folder / "model.pt"
)
with torch.no_grad():
    probabilities = (smoothed(x[:1]) / T_smoothed).softmax(-1)
print(probabilities.argmax().item(), f"{probabilities.max():.0%} sure")

# %%
# Next: :doc:`choose another loss or option </how_to/losses>`, :doc:`study your own
# training code </how_to/your_data>`, or read :doc:`when smoothing helps and when it hurts
# </explanation/theory>`.
