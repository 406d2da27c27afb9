"""ResNet for small images (He et al., CVPR 2016), of any depth and width.

It has a 3x3 stem without pooling and basic blocks. The defaults are ResNet-18 as the backdoor
papers train it on CIFAR-10, with parameters named as there (`layer1.0.conv1`, `shortcut.0`,
`linear`); `depths=[1, 1, 1], width=16` is a network that a CPU trains in seconds. Deviation:
adaptive average pooling, so that any image size works.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """conv-BN-ReLU-conv-BN, added to the shortcut, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(changed + self.shortcut(x))


class CifarResnet(nn.Module):
    """Logits N,`num_classes` for images N,`in_chans`,H,W.

    Args:
        depths: blocks per stage; stage i is called `layer{i + 1}` and halves the image, except for
            the first.
        width: channels of the first stage; each stage doubles them.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        depths: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages: list[str] = []
        channels = width
        for stage, depth in enumerate(depths):
            outputs, blocks = width * 2**stage, []
            for index in range(depth):
                blocks.append(_Block(channels, outputs, 2 if stage > 0 and index == 0 else 1))
                channels = outputs
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = functional.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            features = self.get_submodule(stage)(features)
        return self.linear(functional.adaptive_avg_pool2d(features, 1).flatten(1))
