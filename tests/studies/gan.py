"""The GAN of `own.py`, whose measure is minimised."""

from own import Gan

from hpsearch import Measure, Space, Study, Training, digits


def recipe(space: Space) -> Training:
    """A GAN."""
    return Gan(alpha=space.float("alpha", 1e-4, 0.1, log=True))


study = Study(
    recipe=recipe,
    dataset=digits,
    measure=Measure(name="distance", maximize=False, low=0.0),
    epochs=6,
    interval=2,
    n_trials=3,
    sampler="random",
    pruner="none",
)
