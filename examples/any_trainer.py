"""Let a study run a training program of your own: it loads the loss, trains, and leaves its predictions.

    python any_trainer.py --loss LOSS --seed 0 --out predictions.npz

is how a study calls it, with files of its own, for each arm and seed:

    study.run(study.CommandFit(command="python any_trainer.py --loss {criterion} --seed {seed} --out {out}"))
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn, optim

import labelsmooth

parser = argparse.ArgumentParser(description="Train an MLP on scikit-learn's digits.")
parser.add_argument("--loss", required=True, help="the criterion's file, such as a study writes")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="predictions.npz", help="where to leave the predictions")
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
# The same rows in every run: only what is random in training follows from the seed.
train, val, test = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).split([597, 500, 700])

torch.manual_seed(args.seed)
criterion = labelsmooth.load_criterion(args.loss)  # instead of nn.CrossEntropyLoss()
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = optim.Adam(model.parameters(), lr=5e-3)
for _ in range(args.epochs):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        criterion(model(x[batch]), y[batch]).backward()
        optimizer.step()
    criterion.end_epoch()  # some losses change from epoch to epoch

model.eval()
with torch.no_grad():
    np.savez(
        args.out,
        logits=model(x[test]),
        labels=y[test],
        ids=test,
        val_logits=model(x[val]),
        val_labels=y[val],
    )
