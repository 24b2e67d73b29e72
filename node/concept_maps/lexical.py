"""How alike two texts are written: cosine of TF-IDF over character 3-grams. Needs no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

GRAM = 3


def grams(text: str) -> Counter[str]:
    """Return the 3-grams of each word, its ends marked.

    >>> sorted(grams("ph"))
    [' ph', 'ph ']
    """
    return Counter(
        padded[at : at + GRAM]
        for word in text.split()
        for padded in (f" {word} ",)
        for at in range(max(1, len(padded) - GRAM + 1))
    )


class LexicalIndex:
    """Names, weighed by how rare their 3-grams are among them."""

    def __init__(self, names: Sequence[str]) -> None:
        counted = [grams(name) for name in names]
        seen = Counter(gram for found in counted for gram in found)
        self._place = {gram: place for place, gram in enumerate(sorted(seen))}
        rarity = {gram: 1.0 + np.log((1 + len(names)) / (1 + often)) for gram, often in seen.items()}
        self._rarity = np.array([rarity[gram] for gram in sorted(seen)], np.float32)
        self._names = self._weighed(counted)

    def scores(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Return how alike each label is to each name, 0 to 1: labels by names."""
        found = self._weighed([grams(label) for label in labels]) @ self._names.T
        return np.asarray(found.todense(), np.float32)

    def _weighed(self, counted: list[Counter[str]]) -> sparse.csr_matrix:
        rows, columns, values = [], [], []
        for row, found in enumerate(counted):
            for gram, often in found.items():
                place = self._place.get(gram)
                if place is not None:
                    rows.append(row)
                    columns.append(place)
                    values.append((1 + np.log(often)) * self._rarity[place])
        shape = (len(counted), len(self._place))
        matrix = sparse.csr_matrix((np.array(values, np.float32), (rows, columns)), shape=shape)
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
        lengths[lengths == 0] = 1
        return sparse.csr_matrix(sparse.diags(1 / lengths) @ matrix)
