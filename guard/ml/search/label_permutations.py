"""The objective of an all-to-all trigger: all images of a class go to one other class."""

import torch
from torch import Tensor

from guard.ml.cleanset import Labelled

MEMORY = 0.8  # share of the running mean that a step keeps
TOGETHER = 1.0  # weight of the entropy term


class Departures:
    """The aim that every class goes to one other class, under each row's own labels.

    L = - mean log(1 - p_y(x')) + mean over classes i of the entropy of the mean of p(x') over class
    i. The first term drives images out of their class, the second keeps a class together.

    Args:
        labels: int64 T,N on the model's device, one row a trigger.
        classes: K.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        self.labels, self.classes = labels, classes
        # Running mean of where each class goes, T,K,K: one batch holds too few images of a class.
        self.seen = torch.zeros(len(labels), classes, classes, device=labels.device)

    @property
    def rows(self) -> int:
        return len(self.labels)

    def judge(self, logits: Tensor, rows: slice, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, successes and trials, float T, from logits T,N,K as in `engine.Objective`."""
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
        which = torch.arange(self.rows, device=own.device)[rows][:, None]
        guess = mapping_of(self.seen)[which, own]
        good = (logits.argmax(2) == guess).float().sum(1)
        kept = torch.where(
            (present > 0)[..., None],
            MEMORY * self.seen[rows] + (1 - MEMORY) * means.detach(),
            self.seen[rows],
        )
        self.seen[rows] = kept
        return TOGETHER * together - others.mean(1), good, torch.full_like(good, len(index))


def mapping_of(counts: Tensor) -> Tensor:
    """The class that each class mostly goes to, int64 T,K, from T,K,K counts; never itself."""
    own = torch.eye(counts.shape[-1], dtype=torch.bool, device=counts.device)
    return counts.double().masked_fill(own, -1.0).argmax(-1)


def shuffled(data: Labelled) -> Labelled:
    """The same images with their labels permuted by torch's global generator."""
    return Labelled(data.images, data.labels[torch.randperm(len(data))])


def cyclic_share(mapping: Tensor) -> float:
    """The share (0..1) of classes that the best shift c explains, pi(i) = i + c mod K.

    `mapping` is pi, int64 K; y -> y + 1 has a share of 1.
    """
    classes = len(mapping)
    shifts = (mapping - torch.arange(classes)) % classes
    return float(torch.bincount(shifts, minlength=classes).max()) / classes
