"""Pre-activation ResNet-18 (He et al., ECCV 2016) as the backdoor papers train it on CIFAR-10.

3x3 stem without pooling, four stages of two blocks, strides 1, 2, 2, 2, projection shortcuts
without BatchNorm, and, unlike the 2016 paper but like every backdoor paper's code, no BatchNorm
before the head. Parameters are named as there (`layer1.0.bn1`, `shortcut.0`, `linear`). Deviation:
adaptive average pooling, so that any image size works.
"""

from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """BN-ReLU-conv twice, added to the shortcut; a projection starts after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.conv2(functional.relu(self.bn2(self.conv1(active))))


class PreactResnet18(nn.Module):
    """Logits N,`num_classes` for images N,`in_chans`,H,W.

    `width` is the number of channels of the first stage.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, 1, 1, bias=False)
        self.layer1 = nn.Sequential(_Block(width, width, 1), _Block(width, width, 1))
        self.layer2 = nn.Sequential(_Block(width, 2 * width, 2), _Block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(
            _Block(2 * width, 4 * width, 2), _Block(4 * width, 4 * width, 1)
        )
        self.layer4 = nn.Sequential(
            _Block(4 * width, 8 * width, 2), _Block(8 * width, 8 * width, 1)
        )
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(functional.adaptive_avg_pool2d(features, 1).flatten(1))
