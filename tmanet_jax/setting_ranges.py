"""The ranges of a configuration's numbers."""

import math

from ml_collections import ConfigDict

from tmanet_jax.errors import UserError

_MOST = 2**31 - 1
"""Of counts: those of steps have 32 bits."""
_AT_LEAST_ONE = """
    batch_size num_steps accumulate mesh.space
    model.num_classes model.key_channels model.value_channels
    model.head_channels model.aux_channels eval.batch_size eval.windows_per_call eval.every
    checkpoint.every checkpoint.keep log.every
"""
_NOT_NEGATIVE = """
    max_skipped_steps model.num_memory data.num_workers data.render_train data.render_eval
    data.render_memory_range optimizer.warmup_steps eval.num_overlays eval.num_worst
"""
_NOT_NEGATIVE_NUMBERS = """
    optimizer.learning_rate optimizer.min_learning_rate optimizer.power optimizer.weight_decay
    loss.aux_weight loss.class_weight_power
"""
_FRACTIONS = "model.dropout data.cat_max_ratio data.flip_probability optimizer.momentum"


def check_ranges(config: ConfigDict) -> None:
    """Raises UserError naming the field that has a number it cannot have."""
    for fields, low, high in (
        (_AT_LEAST_ONE, 1, _MOST),
        (_NOT_NEGATIVE, 0, _MOST),
        (_NOT_NEGATIVE_NUMBERS, 0, math.inf),
        (_FRACTIONS, 0, 1),
        ("seed", 0, 2**63 - 1),
    ):
        for field in fields.split():
            value = config
            for name in field.split("."):
                value = value[name]
            if not (low <= value <= high and math.isfinite(value)):
                limit = f"at least {low}" if high in (_MOST, math.inf) else f"from {low} to {high}"
                limit += f", at most {high}" if value > high else ""
                raise UserError(f"config.{field} must be {limit}, not {value}.")
