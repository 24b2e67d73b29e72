"""Solving small symmetric systems, with the same bits on every machine.

Only elementwise IEEE operations on float64 and square roots are used, in an order that is written here: no
BLAS, whose sums depend on the machine and its threads, and no fused multiply-add, which numpy's elementwise
products and differences are not. So all who saw the same totals go on with the same coefficients.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

SMALLEST_PIVOT = (
    1e-11  # of its diagonal entry: what is left of a column is then rounding, and it follows from others
)


def factor(matrix: Matrix) -> Matrix | None:
    """Return the lower triangular L with L·Lᵀ = matrix; None if it is not clearly positive definite.

    Columns are taken off one after the other (the right-looking form), so nothing is ever summed up at once.
    """
    left = np.array(matrix, dtype=np.float64)
    size = len(left)
    scale = [float(left[j, j]) for j in range(size)]
    found = np.zeros_like(left)
    for j in range(size):
        pivot = float(left[j, j])
        if not (math.isfinite(pivot) and pivot > SMALLEST_PIVOT * scale[j] and pivot > 0.0):
            return None
        root = math.sqrt(pivot)
        column = left[j + 1 :, j] / root
        found[j, j] = root
        found[j + 1 :, j] = column
        left[j + 1 :, j + 1 :] -= column[:, None] * column[None, :]
    return found


def forward(lower: Matrix, right: Matrix) -> Matrix:
    """Return Y with L·Y = right; `right` is a vector or several side by side."""
    left = np.array(right, dtype=np.float64)
    for j in range(len(lower)):
        left[j] = left[j] / lower[j, j]
        left[j + 1 :] -= _each(lower[j + 1 :, j], left) * left[j]
    return left


def backward(lower: Matrix, right: Matrix) -> Matrix:
    """Return X with Lᵀ·X = right; `right` is a vector or several side by side."""
    left = np.array(right, dtype=np.float64)
    for j in reversed(range(len(lower))):
        left[j] = left[j] / lower[j, j]
        left[:j] -= _each(lower[j, :j], left) * left[j]
    return left


def inverse(lower: Matrix) -> Matrix:
    """Return the inverse of the matrix that was factored."""
    return backward(lower, forward(lower, np.eye(len(lower))))


def square_matrix(triangle: Vector, size: int) -> Matrix:
    """Return the symmetric matrix whose upper triangle, row by row, is given."""
    found = np.zeros((size, size))
    rows, columns = np.triu_indices(size)
    found[rows, columns] = triangle
    found[columns, rows] = triangle
    return found


def upper_triangle(matrix: Matrix) -> Vector:
    """Return the upper triangle row by row."""
    found: Vector = matrix[np.triu_indices(len(matrix))]
    return found


def _each(column: Vector, beside: Matrix) -> Matrix:
    return column if beside.ndim == 1 else column[:, None]
