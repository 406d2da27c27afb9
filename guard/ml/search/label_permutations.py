"""The objective of a trigger without a target.

Every class leaves, and each class goes to one other class together.
"""

import torch
from torch import Tensor

from guard.ml.cleanset import Labelled

MEMORY = 0.8  # share of the running mean that a step keeps
TOGETHER = 1.0  # weight of the entropy term, detection.md 7.5


class Departures:
    """Each row has its own labels for the same pictures, and wants every class, so labelled.

    To leave for one other.

    L = - mean log(1 - p_y(x')) + mean over classes i of the entropy of the mean of p(x') over class
    i.

    Args:
        labels: int64 T,N on the model's device, one row a trigger.
        classes: K.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        self.labels, self.classes = labels, classes
        # Where each class has gone of late, T,K,K: a batch alone holds too few pictures of a class
        # to tell.
        self.seen = torch.zeros(len(labels), classes, classes, device=labels.device)

    @property
    def rows(self) -> int:
        return len(self.labels)

    def judge(self, logits: Tensor, rows: slice, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = self.labels[rows][:, index]  # T,N
        chances = logits.log_softmax(2)
        others = chances.scatter(2, own[..., None], -torch.inf).logsumexp(
            2
        )  # log(1 - p_y), exact also where p_y is 1
        members = torch.zeros_like(logits).scatter_(2, own[..., None], 1.0).transpose(1, 2)  # T,K,N
        present = members.sum(2)
        means = members @ chances.exp() / present.clamp(min=1)[..., None]
        entropy = -(means * means.clamp(min=1e-12).log()).sum(2)
        together = (entropy * (present > 0)).sum(1) / (present > 0).sum(1)
        pictures = torch.arange(self.rows, device=own.device)[rows][:, None]
        guess = mapping_of(self.seen)[pictures, own]
        good = (logits.argmax(2) == guess).float().sum(1)
        kept = torch.where(
            (present > 0)[..., None],
            MEMORY * self.seen[rows] + (1 - MEMORY) * means.detach(),
            self.seen[rows],
        )
        self.seen[rows] = kept
        return TOGETHER * together - others.mean(1), good, torch.full_like(good, len(index))


def mapping_of(counts: Tensor) -> Tensor:
    """Where each class mostly goes, T,K, from T,K,K counts or shares; never to itself."""
    own = torch.eye(counts.shape[-1], dtype=torch.bool, device=counts.device)
    return counts.double().masked_fill(own, -1.0).argmax(-1)


def shuffled(data: Labelled) -> Labelled:
    """The same pictures under each other's labels, as often each; from torch's global generator."""
    return Labelled(data.images, data.labels[torch.randperm(len(data))])


def cyclic_share(mapping: Tensor) -> float:
    """The share of classes that the best shift c explains, pi(i) = i + c mod K.

    1 for y -> y + 1.
    """
    classes = len(mapping)
    shifts = (mapping - torch.arange(classes)) % classes
    return float(torch.bincount(shifts, minlength=classes).max()) / classes
