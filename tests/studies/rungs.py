"""The tiny study with more intervals, so that its trials meet several rungs of Hyperband and ASHA."""

from functools import partial

from tiny import recipe

from hpsearch import EarlyStopping, Study, digits

study = Study(
    recipe=recipe, dataset=partial(digits, size=8), epochs=16, early_stopping=EarlyStopping(patience=6), n_trials=18
)
