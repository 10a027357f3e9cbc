"""Train a classifier with smoothed labels: handwritten digits, a small network, Adam; seconds on a CPU."""

import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

from labelsmooth import LabelSmoothingLoss

torch.manual_seed(0)
torch.set_num_threads(1)  # enough for so small a network

images, labels = map(torch.tensor, load_digits(return_X_y=True))
images = images.float() / 16  # grey values from 0 to 1
train, test = torch.randperm(len(labels)).split([1300, 497])
train_loader = DataLoader(TensorDataset(images[train], labels[train]), batch_size=64, shuffle=True)

model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
criterion = LabelSmoothingLoss(smoothing=0.1)  # instead of nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=3e-3)

for epoch in range(1, 21):
    for data, target in train_loader:
        optimizer.zero_grad()
        output = model(data)
        loss = criterion(output, target)
        loss.backward()
        optimizer.step()

    if epoch % 5 == 0:
        with torch.no_grad():
            confidence, prediction = model(images[test]).softmax(-1).max(-1)
        accuracy = (prediction == labels[test]).float().mean()
        print(f"epoch {epoch:2}: test accuracy {accuracy:.1%}, mean confidence {confidence.mean():.1%}")
