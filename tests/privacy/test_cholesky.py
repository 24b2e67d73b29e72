"""Solving small systems: right, refused where there is no one solution, and the same to the last bit."""

from fractions import Fraction

import numpy as np
import pytest

from privacy import cholesky


def system(size: int, *, seed: int = 1, condition: float = 1e3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = rotation @ np.diag(np.geomspace(1.0, condition, size)) @ rotation.T
    return (matrix + matrix.T) / 2.0, rng.normal(size=size)


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_a_solution_solves_the_system(size: int) -> None:
    matrix, right = system(size)
    lower = cholesky.factor(matrix)
    assert lower is not None
    solved = cholesky.backward(lower, cholesky.forward(lower, right))
    assert np.allclose(solved, np.linalg.solve(matrix, right), rtol=1e-11, atol=1e-12)
    assert np.allclose(cholesky.inverse(lower), np.linalg.inv(matrix), rtol=1e-10, atol=1e-11)
    assert np.array_equal(lower, np.tril(lower))


def test_the_order_of_operations_is_the_written_one_bit_for_bit() -> None:
    """Number by number, in Python's floats, which round each operation: no machine does it otherwise."""
    matrix, right = system(9, seed=4)
    size = len(matrix)
    left = [[float(value) for value in row] for row in matrix]
    lower = [[0.0] * size for _ in range(size)]
    for j in range(size):
        lower[j][j] = left[j][j] ** 0.5
        for i in range(j + 1, size):
            lower[i][j] = left[i][j] / lower[j][j]
        for i in range(j + 1, size):
            for k in range(j + 1, size):
                left[i][k] = left[i][k] - lower[i][j] * lower[k][j]
    y = [float(value) for value in right]
    for j in range(size):
        y[j] = y[j] / lower[j][j]
        for i in range(j + 1, size):
            y[i] = y[i] - lower[i][j] * y[j]
    for order in ("C", "F"):
        found = cholesky.factor(np.array(matrix, order=order))
        assert found is not None
        assert found.tolist() == lower
        assert cholesky.forward(found, right).tolist() == y


def test_what_has_no_one_solution_is_refused() -> None:
    x = np.random.default_rng(2).normal(size=(30, 4))
    follows = np.column_stack([x, x[:, 0] - 2.0 * x[:, 2]])
    for matrix in (follows.T @ follows, np.zeros((2, 2)), np.diag([1.0, -1.0]), np.diag([1.0, np.nan])):
        assert cholesky.factor(matrix) is None
    assert cholesky.factor(x.T @ x) is not None


def test_a_triangle_becomes_the_matrix_it_came_from() -> None:
    matrix, _ = system(5)
    assert np.array_equal(cholesky.square_matrix(cholesky.upper_triangle(matrix), 5), matrix)


def test_a_badly_conditioned_system_is_solved_as_well_as_float64_allows() -> None:
    size = 6
    hilbert = [[Fraction(1, i + j + 1) for j in range(size)] for i in range(size)]
    matrix = np.array([[float(value) for value in row] for row in hilbert])
    lower = cholesky.factor(matrix)
    assert lower is not None
    right = matrix @ np.ones(size)
    solved = cholesky.backward(lower, cholesky.forward(lower, right))
    assert np.abs(solved - 1.0).max() < 1e-8  # condition 1.5e7: 1e-16 of the matrix is 1e-9 of the solution
