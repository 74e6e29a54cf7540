"""The study of `mnist.py` on a stratified sample of 10,000 training images: small enough to compare strategies on.

Everything else is the same, the 10,000 validation images included. Figures from it are of the sample, not of MNIST.
"""

from dataclasses import replace
from functools import partial

import mnist as whole  # type: ignore[import-not-found]

from hpsearch import mnist

study = replace(whole.study, dataset=partial(mnist, train_size=10_000))
