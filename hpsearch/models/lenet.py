"""LeNet-5, the course's variant: two convolutions with pooling, three linear layers, ReLU.

LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document recognition*, Proc. IEEE 86 (1998).
"""

from torch import Tensor, nn

from hpsearch.errors import UsageError
from hpsearch.models.activations import activation as activation_named
from hpsearch.models.activations import pieces


class LeNet(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes).

    conv 6@5x5, pool, conv 16@5x5, pool, 120, 84, classes; `width` multiplies the numbers of hidden channels and
    neurons. The first convolution is padded by two, so that 28x28 images give the layer sizes of the course's 32x32
    ones. `dropout` applies to the outputs of the two hidden linear layers.
    """

    def __init__(
        self,
        *,
        width: float = 1,
        activation: str = "relu",
        dropout: float = 0.0,
        channels: int = 1,
        size: int = 28,
        classes: int = 10,
    ) -> None:
        super().__init__()
        first, second, third, fourth = (max(1, round(n * width)) for n in (6, 16, 120, 84))
        side = (size // 2 - 4) // 2
        if side < 1:
            raise UsageError(f"LeNet: images must be at least 12x12 pixels, got size={size}")
        self.shape = (channels, size, size)
        linear_pieces = pieces(activation)
        # A non-decreasing activation gives the same result after max pooling as before it, at a quarter of the cost.
        self.features = nn.Sequential(
            nn.Conv2d(channels, first * linear_pieces, 5, padding=2),
            nn.MaxPool2d(2),
            activation_named(activation),
            nn.Conv2d(first, second * linear_pieces, 5),
            nn.MaxPool2d(2),
            activation_named(activation),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(second * side * side, third * linear_pieces),
            activation_named(activation),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Linear(third, fourth * linear_pieces),
            activation_named(activation),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Linear(fourth, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (N, classes). Raises UsageError when the images are of another shape."""
        if images.shape[1:] != self.shape:
            raise UsageError(
                f"LeNet was built for images {self.shape}, got {tuple(images.shape[1:])}: set channels, size"
            )
        logits: Tensor = self.classifier(self.features(images))
        return logits
