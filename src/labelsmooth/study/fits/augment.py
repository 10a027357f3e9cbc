"""Random augmentation of images: shifts and horizontal flips."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def cropped(images: Tensor, by: int, generator: torch.Generator) -> Tensor:
    """Each image ``(C, H, W)``, shifted by up to ``by`` pixels, padded with zeros."""
    count, _, height, width = images.shape
    padded = pad(images, (by, by, by, by))
    down, right = torch.randint(2 * by + 1, (2, count, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    image = torch.arange(count)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images, half of them flipped horizontally."""
    mirror = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirror, images.flip(3), images)
