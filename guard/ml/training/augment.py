"""Random changes of image batches for training, as tensor operations of our own.

All take float images N,C,H,W in [0, 1] on any device and return such images. They draw from torch's
global CPU generator, so that devices agree and a checkpoint can restore it.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

_ASPECTS = (3 / 4, 4 / 3)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def shifted(images: Tensor, most: int) -> Tensor:
    """Each image moved by up to `most` pixels in both directions, black where it leaves.

    Args:
        images: float N,C,H,W.
        most: 0 changes nothing.
    """
    if most == 0:
        return images
    count, _, height, width = images.shape
    top, left = torch.randint(2 * most + 1, (2, count)).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    padded = functional.pad(images, (most, most, most, most)).permute(0, 2, 3, 1)
    each = torch.arange(count, device=images.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def mirrored(images: Tensor) -> Tensor:
    """Each of the float images N,C,H,W mirrored left to right with probability 1/2."""
    chosen = (torch.rand(len(images)) < 0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def resized_crops(images: Tensor, least: float) -> Tensor:
    """From each image a random part of `least`..1 of its area, enlarged to its size (bilinear).

    Args:
        images: float N,C,H,W.
        least: in 0..1. The sides' ratio is 3/4..4/3, as usual for such crops.
    """
    count = len(images)
    area = least + (1 - least) * torch.rand(count)
    low, high = map(math.log, _ASPECTS)
    aspect = (low + (high - low) * torch.rand(count)).exp()
    wide = (area * aspect).sqrt().clamp(max=1)
    tall = (area / aspect).sqrt().clamp(max=1)
    shift_x = (2 * torch.rand(count) - 1) * (1 - wide)
    shift_y = (2 * torch.rand(count) - 1) * (1 - tall)
    zero = torch.zeros(count)
    maps = torch.stack(
        [torch.stack([wide, zero, shift_x], 1), torch.stack([zero, tall, shift_y], 1)], 1
    )
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid.to(images), padding_mode="border", align_corners=False
    )


def jittered(images: Tensor, *, often: float = 0.8, grey: float = 0.2) -> Tensor:
    """Random brightness, contrast, saturation (0.6..1.4 each) and hue (a tenth of a turn).

    Images of other than three channels keep their colours, and only change in brightness and
    contrast.

    Args:
        images: float N,C,H,W.
        often: the share of images that are changed.
        grey: the share of images with three channels that lose their colours.
    """
    count, channels = images.shape[:2]
    factors = (0.6 + 0.8 * torch.rand(3, count)).to(images)[:, :, None, None, None]
    turn = (2 * torch.rand(count) - 1) * 0.2 * math.pi
    changed = (torch.rand(count) < often).to(images.device)[:, None, None, None]
    colourless = (torch.rand(count) < grey).to(images.device)[:, None, None, None]
    made = (images * factors[0]).clamp(0, 1)
    middle = made.mean((1, 2, 3), keepdim=True)
    made = (middle + (made - middle) * factors[1]).clamp(0, 1)
    if channels == len(_LUMA):
        luma = _luma(made)
        made = (luma + (made - luma) * factors[2]).clamp(0, 1)
        made = torch.einsum("nij,njhw->nihw", _turns(turn).to(images), made).clamp(0, 1)
    made = torch.where(changed, made, images)
    if channels == len(_LUMA):
        made = torch.where(colourless, _luma(made).expand_as(made), made)
    return made


def _luma(images: Tensor) -> Tensor:
    return (images * images.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def _turns(angle: Tensor) -> Tensor:
    """Rotations of colours N,3,3 about the grey axis by angles N (Rodrigues' formula)."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    ones = torch.ones(3, 3) / 3
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return cosine * (torch.eye(3) - ones) + sine * cross + ones


def cutmix(images: Tensor) -> tuple[Tensor, Tensor, float]:
    """Replace one box in all images by that of other images of the batch (Yun et al., 2019).

    Args:
        images: float N,C,H,W.

    Returns:
        The mixed images; for each the position int64 N, on the CPU, of the image that its box is
        from; and the share 0..1 of pixels that are still its own.
    """
    count, _, height, width = images.shape
    partner = torch.randperm(count)
    side = math.sqrt(float(torch.rand(1)))  # of the box: its area is uniform in 0..1
    tall, wide = round(side * height), round(side * width)
    top = int(torch.randint(-tall // 2, height - tall // 2, (1,)))
    left = int(torch.randint(-wide // 2, width - wide // 2, (1,)))
    rows = slice(max(0, top), max(0, min(height, top + tall)))
    columns = slice(max(0, left), max(0, min(width, left + wide)))
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[partner.to(images.device)][:, :, rows, columns]
    covered = len(range(height)[rows]) * len(range(width)[columns])
    return mixed, partner, 1 - covered / (height * width)
