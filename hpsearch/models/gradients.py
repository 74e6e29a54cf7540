"""Gradient norms by layer, which show where the gradient vanishes or explodes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def gradient_norms(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor
) -> dict[str, float]:
    """Return the Euclidean norm of the loss's gradient in each layer's weights, from the first layer to the last.

    The keys are the layers' names in the model; biases and normalisation layers are left out. The parameters' `.grad`
    is neither used nor changed. On vanishing gradients: Bengio, Simard and Frasconi, *Learning long-term dependencies
    with gradient descent is difficult*, IEEE Trans. Neural Networks 5 (1994).
    """
    weights = {
        name.removesuffix(".weight"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dim() > 1
    }
    gradients = torch.autograd.grad(loss(model(inputs), targets), list(weights.values()))
    return {name: gradient.norm().item() for name, gradient in zip(weights, gradients, strict=True)}
