"""A study of your own data and model: a fit trains one model with the given criterion."""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn, optim

from labelsmooth import study

table, labels = map(torch.tensor, load_breast_cancer(return_X_y=True))
train, val, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).split(
    [200, 149, 220]
)
# The mean and the standard deviation come from the training rows only.
table = ((table - table[train].mean(0)) / table[train].std(0)).float()


def fit(criterion: study.Criterion, seed: int) -> study.FitResult:
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))  # seeded by the study
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = criterion(model(table[train]), labels[train])
        loss.backward()
        optimizer.step()
        criterion.end_epoch()  # advances losses that change over time
    model.eval()
    with torch.no_grad():
        return {"val": (model(table[val]), labels[val]), "test": (model(table[test]), labels[test])}


print(study.run(fit, eps=[0.05, 0.1, 0.2], seeds=5, output="own-data-study"))
