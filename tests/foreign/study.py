"""The network of `nets.py` that $HPSEARCH_TEST_NET names, searched over its width and step size.

Where $HPSEARCH_TEST_DEATH names a file that is not there, the first trial makes it and kills its process, in the second
epoch.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nets import NETS

from hpsearch import SGD, EarlyStopping, Recipe, Space, Study

net = NETS[os.environ["HPSEARCH_TEST_NET"]]
death = os.environ.get("HPSEARCH_TEST_DEATH")


def mortal(loss: Callable[..., Any]) -> Callable[..., Any]:
    batches = 0

    def with_death(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal batches
        batches += torch.is_grad_enabled()
        if batches == 7 and death and not Path(death).exists():
            Path(death).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        found: torch.Tensor = loss(outputs, targets)
        return found

    return with_death


def recipe(space: Space) -> Recipe:
    return Recipe(
        model=net.model(space.int("width", 2, 3)),
        optimizer=SGD(lr=space.float("lr", 0.01, 0.1, log=True), momentum=0.5),
        loss=mortal(net.loss()) if death else net.loss(),
        batch_size=net.batch_size,
    )


study = Study(
    recipe=recipe,
    dataset=net.data,
    epochs=3,
    early_stopping=EarlyStopping(patience=None),
    n_trials=2,
    sampler="random",
    pruner="none",
)
