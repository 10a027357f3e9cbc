"""Train an image classifier with mixup and CutMix, in a loop like timm's.

timm makes smoothed class probabilities, N x K, for ``SoftTargetCrossEntropy``. Here each image has a pair of
labels, and the criterion smooths them. In validation the same criterion is the plain loss.

    python examples/timm_style.py
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from labelsmooth import CrossEntropyLoss, mixed


def mixup(images: Tensor, alpha: float = 0.2) -> tuple[Tensor, float]:
    """Each image mixed with the one at the mirrored place of the batch, and its own share."""
    lam = torch.distributions.Beta(alpha, alpha).sample().item()
    return lam * images + (1 - lam) * images.flip(0), lam


def cutmix(images: Tensor, alpha: float = 1.0) -> tuple[Tensor, float]:
    """The same with a box of the other image: what is left of the area is the share."""
    size = torch.tensor(images.shape[-2:])
    center = torch.rand(2) * size
    half = size * (1 - torch.distributions.Beta(alpha, alpha).sample()).sqrt() / 2
    top, left = (center - half).round().long().clamp(min=0).tolist()
    bottom, right = torch.minimum((center + half).round().long(), size).tolist()
    images, others = images.clone(), images.flip(0)
    images[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / int(size.prod())


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # enough for so small a network
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float().reshape(-1, 1, 8, 8) / 16
    train, val = torch.randperm(len(labels)).split([1300, 497])
    loader = DataLoader(
        TensorDataset(images[train], labels[train]), batch_size=64, shuffle=True, drop_last=True
    )

    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 10)),
    )
    loss_fn = CrossEntropyLoss(label_smoothing=0.1, train_only=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    for epoch in range(1, 16):
        model.train()
        for data, target in loader:
            data, lam = mixup(data) if torch.rand(()) < 0.5 else cutmix(data)
            loss = loss_fn(model(data), mixed(target, target.flip(0), lam))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        if epoch % 5 == 0:
            model.eval()
            with torch.no_grad():  # where the loss is the plain one
                output = model(images[val])
                loss = loss_fn(output, labels[val])
            accuracy = (output.argmax(-1) == labels[val]).float().mean()
            print(f"epoch {epoch:2}: validation loss {loss:.3f}, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
