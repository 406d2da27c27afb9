"""The semi-supervised contrastive loss of D-ST, for two views of each image of a batch.

Source: Chen et al., "Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples",
NeurIPS 2022; the loss itself is that of Khosla et al., "Supervised Contrastive Learning", NeurIPS
2020.
"""

import torch
from torch import Tensor
from torch.nn import functional


def positives(labels: Tensor, trusted: Tensor) -> Tensor:
    """Which pairs of views are to be alike, bool 2B,2B; the second B views are of the same images.

    Two views are if they show one image, or two trusted images of the same label. The published
    code masks the rows of images that are not trusted, and so still draws trusted images to
    poisoned ones with their label; here the columns are masked as well.

    Args:
        labels: int64 B.
        trusted: bool B.
    """
    count = len(labels)
    alike = (labels[:, None] == labels) & trusted[:, None] & trusted
    alike |= torch.eye(count, dtype=torch.bool, device=labels.device)
    both = alike.repeat(2, 2)
    return both & ~torch.eye(2 * count, dtype=torch.bool, device=labels.device)


def contrastive_loss(
    features: Tensor, positive: Tensor, *, temperature: float, base: float
) -> Tensor:
    """The mean over all views of -T/T_b mean_p log(exp(s_p / T) / sum_k exp(s_k / T)); a scalar.

    s are cosines of a view with the others, p its positives.

    Args:
        features: float 2B,D, of any length each.
        positive: bool 2B,2B, as `positives` gives it; each row has at least one.
        temperature: T, larger than 0.
        base: T_b, which only scales the loss.
    """
    unit = functional.normalize(features, dim=1)
    scores = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logs = scores - scores.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    means = (logs * positive).sum(1) / positive.sum(1)
    return -(temperature / base) * means.mean()
