"""A training program that a study can run: it loads the loss, trains, and saves its predictions.

A study calls it with its own files for each arm and seed, like

    python any_trainer.py --loss LOSS --seed 0 --out predictions.npz

and is started by

    study.run(study.CommandFit(command="python any_trainer.py --loss {criterion} --seed {seed} --out {out}"))
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn, optim

import labelsmooth

parser = argparse.ArgumentParser(description="Train an MLP on scikit-learn's digits.")
parser.add_argument("--loss", required=True, help="the file of the criterion, which the study writes")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="predictions.npz", help="the file for the predictions")
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
# The splits are the same in every run; the seed determines only the randomness of training.
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
    criterion.end_epoch()  # advances losses that change over time

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
