"""Estimators of Shapley values, one a file. They see a game and never a network."""

from shapprune.shapley.algorithm1 import algorithm1
from shapprune.shapley.exact import exact
from shapprune.shapley.multilinear import multilinear
from shapprune.shapley.permutation import permutation
from shapprune.shapley.result import DifferentiableGame, Game, ShapleyValues
from shapprune.shapley.stopping import TopSet
from shapprune.shapley.tmab import tmab

__all__ = [
    "DifferentiableGame",
    "Game",
    "ShapleyValues",
    "TopSet",
    "algorithm1",
    "exact",
    "multilinear",
    "permutation",
    "tmab",
]
