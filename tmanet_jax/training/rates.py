"""Which parameters train, and how fast: by patterns of their names, and by their depth.

A parameter's name is its path in the network, such as `backbone.stages.0.1.conv2.conv.kernel_hwio`.
A pattern is a shell's (`*`, `?`, `[...]`), and matches a name or whole parts at its beginning:
`backbone.stages.0` is all of the first stage.
"""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tmanet_jax.errors import UserError


def names_of(params: Any) -> Any:
    """The name of each parameter, in a tree like that of the parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(
            ".value"
        ),
        params,
    )


def without_frozen(grads: Any, frozen: Sequence[str]) -> Any:
    """The gradients, with zeros for parameters that the patterns freeze: nobody computes them."""
    return jax.tree.map(
        lambda grad, name: jnp.zeros_like(grad) if _matches(name, frozen) else grad,
        grads,
        names_of(grads),
    )


def factors_of_rate(
    params: Any, layer_decay: float, rates: Mapping[str, float], frozen: Sequence[str]
) -> Any:
    """What each parameter's update is multiplied by, in a tree like that of the parameters.

    Args:
        params: the parameters, or what has their paths.
        layer_decay: factor of each step from the heads down the backbone: a backbone of n groups
            (the stem, and its stages or layers) trains at layer_decay ** n in its stem and at
            layer_decay in its last group.
        rates: factors by patterns; of several that match the last one counts.
        frozen: patterns of parameters that do not train.

    Raises:
        UserError: a pattern matches no parameter.

    Source: after ConvNeXt's `LearningRateDecayOptimizerConstructor`, `stage_wise`, where the heads
    stand three steps above the last stage and what lies between stages goes with the stem: rates
    by patterns say that exactly (`configs/tmanet_convnext_t.py`).
    """
    names = names_of(params)
    all_names = jax.tree.leaves(names)
    for pattern in (*rates, *frozen):
        if not any(_matches(name, (pattern,)) for name in all_names):
            raise _matches_nothing(pattern, all_names)
    depth_of_head = 1 + max(map(_depth, filter(_is_backbone, all_names)), default=-1)

    def factor(name: str) -> float:
        if _matches(name, frozen):
            return 0.0
        factors = [factor for pattern, factor in rates.items() if _matches(name, (pattern,))]
        depth = _depth(name) if _is_backbone(name) else depth_of_head
        return layer_decay ** (depth_of_head - depth) * (factors[-1] if factors else 1.0)

    return jax.tree.map(factor, names)


def factors_of_groups(
    params: Any, layer_decay: float, rates: Mapping[str, float], frozen: Sequence[str]
) -> dict[str, float]:
    """The greatest factor in each head and in each group of the backbone, by their names.

    Args, Raises: as `factors_of_rate`.
    """
    found: dict[str, float] = {}
    factors = factors_of_rate(params, layer_decay, rates, frozen)
    for name, factor in zip(
        jax.tree.leaves(names_of(params)), jax.tree.leaves(factors), strict=True
    ):
        group = re.sub(r"^(backbone\.(?:stem|\w+\.\d+|\w+)|\w+)\..*", r"\1", name)
        found[group] = max(found.get(group, 0.0), factor)
    return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")
        for pattern in patterns
    )


def _is_backbone(name: str) -> bool:
    return name.startswith("backbone.")


def _depth(name: str) -> int:
    """Of a group of the backbone: 0 for the stem, 1 for the first stage, and so on."""
    group = re.match(r"backbone\.(?!stem\.)\w+\.(\d+)\.", name)
    return int(group[1]) + 1 if group else 0


def _matches_nothing(pattern: str, names: Sequence[str]) -> UserError:
    parts = {name.rsplit(".", count)[0] for name in names for count in range(name.count(".") + 1)}
    near = difflib.get_close_matches(pattern, sorted(parts), n=3, cutoff=0.4) or names[:3]
    return UserError(
        f"The pattern {pattern!r} (config.optimizer.frozen, config.optimizer.rates) matches no "
        f"parameter that trains. Near it are {', '.join(near)}."
    )
