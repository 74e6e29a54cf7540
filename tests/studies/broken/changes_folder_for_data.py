import os

from hpsearch import MLP, SGD, Recipe, Study, digits


def data():
    os.chdir("/")
    return digits(size=8)


def recipe(space):
    return Recipe(model=MLP(inputs=64), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)))


study = Study(recipe=recipe, dataset=data)
