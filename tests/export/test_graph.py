"""Constants of a graph."""

import numpy as np

from tmanet_jax.export.graph import Graph


def test_small_constants_are_shared_and_none_is_lost() -> None:
    graph = Graph()
    three = graph.constant(np.array([3]))
    assert graph.constant(np.array([3])) == three
    assert graph.constant(np.array([3.0])) != three
    graph.without_unused([])
    assert not graph.constants
    assert graph.constant(np.array([3])) in graph.constants
    for _ in range(20):  # each takes the place in memory of the one before
        graph.without_unused([])
        assert graph.constant(np.zeros(100)) in graph.constants
