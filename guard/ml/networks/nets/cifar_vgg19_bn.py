"""VGG-19 with BatchNorm for small images (Simonyan and Zisserman, 2015), one linear layer as head.

Deviation: adaptive average pooling before the head, so that any image size of 32 pixels or more
works.
"""

from torch import Tensor, nn

#: Channels in units of `width`; 0 is a max pooling.
_PLAN = (1, 1, 0, 2, 2, 0, 4, 4, 4, 4, 0, 8, 8, 8, 8, 0, 8, 8, 8, 8, 0)


class CifarVgg19Bn(nn.Module):
    """Logits N,`num_classes` for images N,`in_chans`,H,W with H and W of at least 32.

    `width` is the number of channels of the first layers.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_chans
        for factor in _PLAN:
            if factor == 0:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            outputs = factor * width
            layers += [
                nn.Conv2d(channels, outputs, 3, 1, 1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))
