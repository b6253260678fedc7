# mypy: ignore-errors
"""Helpers in another module."""

import numpy as np

FACTOR = 1.609344
LEVELS = np.array([0.0, 10.0, 100.0])


def demeaned(x):
    return _minus(x, x.mean())


def _minus(x, y):
    return x - y


def kilometres(miles):
    return _times(miles)


def _times(x):
    return x * FACTOR
