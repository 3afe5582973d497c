"""What a network consists of and computes, module by module, read off the program that jax makes.

A multiply-add counts as two operations. Counted are the convolutions and the products of matrices;
norms, activations and the up-sampling of the logits to the frames (together below one percent of
the published networks) are not. Positions of a kernel that lie on padding count like all others.
"""

import collections
import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters.partial_eval import dce_jaxpr

from tmanet_jax.models.resnet import Frozen
from tmanet_jax.models.tmanet import ModelConfig, TMANet, abstract_model

METHODS = ("__call__", "remember", "read")
"""Of modules: what computes."""
_SCOPE = "module "
"""Before a module's name, where a program says which module its parts are of."""


class Work(NamedTuple):
    """What a program, or a part of one, computes.

    Attributes:
        operations: of its convolutions and products.
        activations: numbers that these give.
    """

    operations: int = 0
    activations: int = 0

    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]  # of tuples
        return Work(self.operations + other.operations, self.activations + other.activations)


class Row(NamedTuple):
    """A module.

    Attributes:
        path: its name in the network; "" of the whole.
        shape: of what it gives; of several arrays the last one's.
        parameters: numbers that training changes, or leaves as they are if they are frozen.
        work: its own and that of the modules in it.
    """

    path: str
    shape: tuple[int, ...]
    parameters: int
    work: Work


def summary_of(config: ModelConfig, size: tuple[int, int]) -> list[Row]:
    """The modules of a network that segments one clip, auxiliary head included.

    Args:
        config: of the network.
        size: height and width of the frames.
    """
    model = abstract_model(config)
    graphdef, state = nnx.split(model)
    shapes: dict[str, tuple[int, ...]] = {}

    def segment(state: nnx.State, frames_1xSxHxWx3: jax.Array) -> Any:
        network: TMANet = nnx.merge(graphdef, state)
        with _calls_named(network, shapes):
            return network(frames_1xSxHxWx3)

    clip = jax.ShapeDtypeStruct((1, config.head.num_memory + 1, *size, 3), jnp.float32)
    work: dict[str, Work] = collections.defaultdict(Work)
    for path, some in _work_by_module(jax.make_jaxpr(segment)(state, clip).jaxpr):
        for ancestor in _ancestors(path):
            work[ancestor] += some
    parameters: collections.Counter[str] = collections.Counter()
    for names, leaf in nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, Frozen))):
        for ancestor in _ancestors(".".join(map(str, names))):
            parameters[ancestor] += leaf.size
    return [Row(path, shape, parameters[path], work[path]) for path, shape in shapes.items()]


def work_of(function: Callable[..., Any], *arguments: Any) -> Work:
    """What a function computes of arguments, of which shapes are enough.

    Nothing that its results do not need is counted; what it computes twice counts twice.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return sum((work for _, work in _work_by_module(needed)), Work())


def _ancestors(path: str) -> list[str]:
    """The names of a module and of all that it is in, as in "", "a", "a.b"."""
    names = path.split(".") if path else []
    return [".".join(names[:length]) for length in range(len(names) + 1)]


@contextlib.contextmanager
def _calls_named(network: nnx.Module, shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Names what each module computes while a program is made, and notes the shape it gives."""
    modules = [(path, module) for path, module in nnx.iter_modules(network)]
    paths = {id(module): ".".join(map(str, path)) for path, module in modules}
    kinds = {kind for _, module in modules for kind in type(module).__mro__}
    methods = [
        (kind, name, vars(kind)[name]) for kind in kinds for name in METHODS if name in vars(kind)
    ]

    def named(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(module: nnx.Module, *arguments: Any, **options: Any) -> Any:
            path = paths[id(module)]
            shapes.setdefault(path, ())
            with jax.named_scope(_SCOPE + path):
                result = method(module, *arguments, **options)
            arrays = jax.tree.leaves(result)
            shapes[path] = arrays[-1].shape if arrays else ()
            return result

        return call

    try:
        for kind, name, method in methods:
            setattr(kind, name, named(method))
        yield
    finally:
        for kind, name, method in methods:
            setattr(kind, name, method)


def _work_by_module(jaxpr: Jaxpr, path: str = "", times: int = 1) -> Iterator[tuple[str, Work]]:
    """What each convolution and product computes, and which module it is of.

    Args:
        jaxpr: the program.
        path: the module that it is of where it does not say.
        times: how often it runs.
    """
    for equation in jaxpr.eqns:
        scopes = str(equation.source_info.name_stack).split("/")
        inside = [scope.removeprefix(_SCOPE) for scope in scopes if scope.startswith(_SCOPE)]
        innermost = inside[-1] if inside else path
        rounds = times * equation.params.get("length", 1) if _is(equation, "scan") else times
        for inner in _called(equation):
            yield from _work_by_module(inner, innermost, rounds)
        if each := _work_of_equation(equation):
            yield innermost, Work(*(times * number for number in each))


def _is(equation: JaxprEqn, name: str) -> bool:
    return equation.primitive.name == name


def _called(equation: JaxprEqn) -> list[Jaxpr]:
    """The programs in an equation; of ways to compute the same, by platform, the usual one."""
    if _is(equation, "cond"):
        return [equation.params["branches"][-1].jaxpr]
    values = equation.params.values()
    closed = [value.jaxpr for value in values if isinstance(value, ClosedJaxpr)]
    return [*closed, *(value for value in values if isinstance(value, Jaxpr))]


def _work_of_equation(equation: JaxprEqn) -> Work | None:
    if not (_is(equation, "dot_general") or _is(equation, "conv_general_dilated")):
        return None
    left, right, output = (
        cast(Any, variable.aval).shape for variable in (*equation.invars, *equation.outvars)
    )
    numbers = equation.params["dimension_numbers"]
    if _is(equation, "dot_general"):
        (contracted, _), _ = numbers
        products = math.prod(left[axis] for axis in contracted)
    else:
        zeros = math.prod(equation.params["lhs_dilation"])  # put between the input's rows
        products = math.prod(right) // right[numbers.rhs_spec[0]] // zeros
    activations = math.prod(output)
    return Work(2 * activations * products, activations)
