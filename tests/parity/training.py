"""Training steps, SGD and the poly schedule."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.parity.goldens import Case, at_least_one, clip_of, relative_l2
from tests.parity.network import build, precision
from tmanet_jax.data.samples import Batch
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.losses import LossConfig, Losses, pixels, segmentation_loss
from tmanet_jax.models.tmanet import Logits
from tmanet_jax.training import step
from tmanet_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from tmanet_jax.training.step import Recipe, StepMetrics, TrainState, init_state
from tmanet_jax.weights.names import UPDATE_COUNT, Tensors, to_tensors


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Bounds on the first step's numbers; float64 holds them over all steps."""

    loss: float
    accuracy: float
    grad_norm: float
    grad: float
    statistics: float


TOLERANCES = {
    "float32": Tolerance(loss=1e-5, accuracy=1e-4, grad_norm=1e-2, grad=2e-2, statistics=1e-5),
    "float64": Tolerance(loss=1e-9, accuracy=1e-6, grad_norm=1e-9, grad=1e-9, statistics=1e-9),
}
LATER_FLOAT32 = 5e-2
"""After several float32 steps: relative bound on losses and norms."""
LATER_FLOAT64 = 1e-9

LEARNING_RATE_RELATIVE = 1e-12
SGD_ABSOLUTE = 1e-6


class Step(NamedTuple):
    """One step of a run: what the log says, and the tensors after it by the original's names."""

    log: dict[str, float]
    grads: Tensors
    params: Tensors
    statistics: Tensors


def check_train(case: Case, dtype: str) -> None:
    """Losses, accuracies, gradients and statistics of the first step, and what several come to."""
    suffix = "_f64" if dtype == "float64" else ""
    with precision(dtype):
        _check_inputs(case)
        _check_learning_rates(case)
        matches = (re.fullmatch(rf"log_max(\d+){suffix}", key) for key in case.facts)
        runs = at_least_one({match[0]: int(match[1]) for match in matches if match})
        train = _compiled_run(case, dtype)
        for log_key, num_steps in runs.items():
            steps = train(num_steps)
            _check_first_step(case, steps[0], log_key, dtype)
            _check_later_steps(case, steps, log_key, dtype)


def _check_inputs(case: Case) -> None:
    """The generator still makes what the original was given; it fed the query first."""
    clip = _clip(case, 0)
    order = (clip.shape[1] - 1, *range(clip.shape[1] - 1))
    sums = [clip[:, s].sum(dtype=np.float64) for s in order]
    np.testing.assert_allclose(
        sums, case.facts["backbone_call_order_check"]["stem_input_sums"], rtol=1e-4
    )


def _check_learning_rates(case: Case) -> None:
    with jax.enable_x64(True):
        for num_steps, rates in at_least_one(case.facts["lr"]).items():
            schedule = make_schedule(_optimizer_config(case.facts["optimizer"]), int(num_steps))
            for iteration, rate in at_least_one(rates).items():
                computed = schedule(int(iteration))
                np.testing.assert_allclose(computed, rate, rtol=LEARNING_RATE_RELATIVE)


def _optimizer_config(facts: Mapping[str, Any]) -> OptimizerConfig:
    return OptimizerConfig(
        learning_rate=facts["lr"], momentum=facts["momentum"], weight_decay=facts["weight_decay"]
    )


def _clip(case: Case, index: int) -> np.ndarray:
    b, t, h, w = (case.facts[name] for name in ("B", "T", "H", "W"))
    query = case.input(case.facts["seeds_img"][index], [b, 3, h, w])
    return clip_of(query, case.input(case.facts["seeds_sequence"][index], [b, t, 3, h, w]))


def _batch(case: Case, index: int, dtype: str) -> Batch:
    """The inputs of one step; they are already normalised, which takes no sizes."""
    nothing = np.zeros(case.facts["B"])
    labels = case.arrays[f"labels{index}"][:, 0]
    return Batch(_clip(case, index).astype(dtype), labels, sizes=nothing, indices=nothing)


def _compiled_run(case: Case, dtype: str) -> Callable[[int], list[Step]]:
    """The project's own train step on the case's batches, as a function of the run's length."""
    config = _optimizer_config(case.facts["optimizer"])
    model = build(case, dtype, dropout=0.0)
    graphdef, initial = init_state(model, _optimizer(config, num_steps=1))

    @jax.jit
    def one_step(
        state: TrainState, batch: Batch, num_steps: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        optimizer = _optimizer(config, num_steps)
        recipe = Recipe(graphdef, optimizer, LossConfig(), model.config.align_corners, seed=0)
        with (
            mock.patch.object(step, "normalize", lambda frames, sizes: frames),
            mock.patch.object(step, "segmentation_loss", _with_both_accuracies),
        ):
            return step.train_step(state, batch, recipe)

    def run(num_steps: int) -> list[Step]:
        state, steps = initial, []
        schedule = make_schedule(config, num_steps)
        for index in range(len(case.facts["seeds_img"])):
            batch = _batch(case, index, dtype)
            state, metrics = one_step(state, batch, jnp.asarray(num_steps))
            log = _log(metrics.losses, learning_rate=float(schedule(index)))
            grads = to_tensors(state.opt_state[0])
            steps.append(Step(log, grads, to_tensors(state.params), to_tensors(state.batch_stats)))
        return steps

    return run


def _optimizer(config: OptimizerConfig, num_steps: Any) -> optax.GradientTransformation:
    return optax.chain(_remember_gradients(), make_optimizer(config, num_steps))


def _remember_gradients() -> optax.GradientTransformation:
    """Passes gradients on and keeps them as its state."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params=None: (grads, grads),
    )


def _with_both_accuracies(
    logits: Logits, labels_BxHxW: jax.Array, config: LossConfig, *, align_corners: bool
) -> Losses:
    """`segmentation_loss` with both heads' accuracies; the project logs the main head's alone."""
    size = (labels_BxHxW.shape[1], labels_BxHxW.shape[2])
    aux_BxHxWxC = resize_bilinear(logits.aux, size, align_corners=align_corners)
    losses = segmentation_loss(logits, labels_BxHxW, config, align_corners=align_corners)
    accuracy_of_aux = pixels(aux_BxHxWxC, labels_BxHxW).is_right_BxHxW.mean()
    accuracies = jnp.stack([losses.accuracy, accuracy_of_aux])
    return losses._replace(accuracy=accuracies)


def _log(losses: Losses, learning_rate: float) -> dict[str, float]:
    """The original's log line. It gives accuracies in percent, this project as fractions."""
    return {
        "loss": float(losses.total),
        "decode.loss_seg": float(losses.main),
        "aux.loss_seg": float(losses.aux),
        "decode.acc_seg": 100 * float(losses.accuracy[0]),
        "aux.acc_seg": 100 * float(losses.accuracy[1]),
        "lr": learning_rate,
    }


def _check_first_step(case: Case, first: Step, log_key: str, dtype: str) -> None:
    suffix = "_f64" if dtype == "float64" else ""
    tolerance = TOLERANCES[dtype]
    _check_log(first.log, case.facts[log_key][0], tolerance.loss, tolerance.accuracy)
    names = case.facts["param_names"]
    assert set(names) == set(first.grads)
    norms = np.array([_norm(first.grads[name]) for name in names])
    expected_norms = case.arrays[f"grad_norm{suffix}"]
    np.testing.assert_allclose(norms, expected_norms, rtol=tolerance.grad_norm)
    for name, expected in at_least_one(case.expected(f"grad{suffix}/")).items():
        error = relative_l2(first.grads[name], expected)
        assert error <= tolerance.grad, f"gradient of {name}: relative L2 {error}"
    for name, expected in at_least_one(case.expected(f"stats{suffix}/")).items():
        error = np.abs(first.statistics[name] - expected).max()
        assert error <= tolerance.statistics, f"{name} off by {error}"
    counts = at_least_one(case.facts["num_batches_tracked_after_one_step"])
    for layer, count in counts.items():
        assert first.statistics[f"{layer}.{UPDATE_COUNT}"] == count, layer


def _check_later_steps(case: Case, steps: list[Step], log_key: str, dtype: str) -> None:
    tag, last = log_key.removeprefix("log_"), steps[-1]
    close = LATER_FLOAT64 if dtype == "float64" else LATER_FLOAT32
    for index, (computed, expected) in enumerate(zip(steps, case.facts[log_key], strict=True)):
        if dtype == "float64":
            _check_log(computed.log, expected, close, TOLERANCES[dtype].accuracy)
        else:
            _check_later_losses(computed.log, expected, index)
    norms = np.array([_norm(last.params[name]) for name in case.facts["param_names"]])
    np.testing.assert_allclose(norms, case.arrays[f"param_norm_{tag}"], rtol=close)
    for kind, tensors in (("after", last.params), ("stats", last.statistics)):
        for name, tensor in case.expected(f"{kind}{len(steps)}_{tag}/").items():
            if dtype == "float64":
                np.testing.assert_allclose(tensors[name], tensor, rtol=0, atol=close)
            else:
                np.testing.assert_allclose(_norm(tensors[name]), _norm(tensor), rtol=close)


def _check_later_losses(
    computed: Mapping[str, float], expected: Mapping[str, float], index: int
) -> None:
    """Losses of a float32 run: rounding has grown to percents by the third step.

    Accuracies are not comparable.
    """
    for name in ("loss", "decode.loss_seg", "aux.loss_seg"):
        error = abs(computed[name] / expected[name] - 1)
        assert error <= LATER_FLOAT32, f"{name} of step {index} off by {error:.1%}"


def _check_log(
    computed: Mapping[str, float],
    expected: Mapping[str, float],
    loss_tolerance: float,
    accuracy_tolerance: float,
) -> None:
    """Losses and learning rate by a relative bound, accuracies (percent) by an absolute one."""
    assert computed.keys() == expected.keys()
    for name, value in expected.items():
        is_accuracy = name.endswith("acc_seg")
        np.testing.assert_allclose(
            computed[name],
            value,
            rtol=0 if is_accuracy else loss_tolerance,
            atol=accuracy_tolerance if is_accuracy else 0,
            err_msg=name,
        )


def _norm(x: np.ndarray) -> float:
    return float(np.linalg.norm(x.astype(np.float64)))


def check_sgd(case: Case) -> None:
    """Parameters after each step on given gradients, and the learning rates."""
    grads = at_least_one(case.expected("grad_"))
    start = {name: case.arrays[f"{name}0"] for name in grads}
    for num_steps, rates in at_least_one(case.facts["lr"]).items():
        config = OptimizerConfig(
            learning_rate=rates[0],
            momentum=_number_after("momentum", case),
            weight_decay=_number_after("wd", case),
        )
        np.testing.assert_allclose(
            [make_schedule(config, int(num_steps))(it) for it in range(len(rates))],
            rates,
            rtol=SGD_ABSOLUTE,
        )
        optimizer = make_optimizer(config, int(num_steps))
        params: Mapping[str, Any] = jax.tree.map(jnp.asarray, start)
        state = optimizer.init(params)
        for it in range(len(rates)):
            now = {name: grads_by_step[it] for name, grads_by_step in grads.items()}
            updates, state = optimizer.update(now, state, params)
            params = optax.apply_updates(params, updates)
            for name in start:
                expected = case.arrays[f"max{num_steps}_{name}"][it]
                np.testing.assert_allclose(params[name], expected, rtol=0, atol=SGD_ABSOLUTE)


def _number_after(word: str, case: Case) -> float:
    """A hyper-parameter, which cases of this kind name in `what` alone."""
    match = re.search(rf"{word} ([\d.e-]*\d)", case.facts["what"])
    assert match, f"{case.path} does not say {word}"
    return float(match[1])
