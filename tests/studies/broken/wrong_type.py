"""A study that is none."""

study = "lenet"
