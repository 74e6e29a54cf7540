import os

from hpsearch import MLP, SGD, Recipe, Study, digits

os.chdir("/")


def recipe(space):
    return Recipe(model=MLP(inputs=784), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)))


study = Study(recipe=recipe, dataset=digits)
