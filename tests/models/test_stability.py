"""Agreement of layer curves."""

import numpy as np
import pytest

from reasonserve.models.stability import between_groups, spearman


def test_spearman_by_hand():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    # Ranks 0 1 2 3 against 1 0 2 3: 1 - 6 * 2 / (4 * 15).
    assert spearman([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(0.8)
    # Two that tie share rank 0.5, and are then as far apart as Pearson says of the ranks.
    assert spearman([5, 5, 7], [1, 2, 3]) == pytest.approx(np.corrcoef([0.5, 0.5, 2], [0, 1, 2])[0, 1])
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_groups_are_compared_by_their_means():
    curves = np.array([[1.0, 9.0, 3.0], [3.0, 1.0, 9.0], [2.0, 5.0, 6.0]])
    # The mean of the first two is [2, 5, 6], the third's own curve.
    assert between_groups(curves, ["logic", "logic", "code"]) == pytest.approx([1.0])
    assert len(between_groups(curves, ["same", "same", "same"])) == 3
