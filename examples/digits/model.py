"""A small convolutional network for 8x8 grey images of handwritten digits."""

from torch import Tensor, nn


class DigitsNet(nn.Module):
    """Two convolution blocks and two linear layers; 10 logits an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, width),
            *_block(width, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(8 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 10))

    def forward(self, image: Tensor) -> Tensor:
        """Logits, float32 [batch, 10], of `image`, float32 [batch, 1, 8, 8] with grey levels from 0 to 1."""
        logits: Tensor = self.head(self.features(image))
        return logits


def _block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    # No bias: the batch norm has one.
    return (
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def build(width: int = 32) -> nn.Module:
    """The untrained network; `width` is the number of channels of the first block."""
    return DigitsNet(width)
