"""A name that is not defined."""

from hpsearch import Study

study = Study(recipe=recipee, dataset=None)
