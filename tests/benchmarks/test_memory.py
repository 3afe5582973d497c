"""The table of memories varies fields that there are."""

from ast import literal_eval

from benchmarks.memory import MEMORIES, STUDIED, _workdir
from tmanet_jax.command_line import read_settings


def _halves(field: str) -> list[str]:
    return field.split("=")


def test_the_study_varies_fields_that_there_are_in_workdirs_of_their_own() -> None:
    variants = MEMORIES | STUDIED
    settings = [
        read_settings("demo", {name: literal_eval(value) for name, value in map(_halves, fields)})
        for fields in variants.values()
    ]
    assert all(settings.count(one) == 1 for one in settings)
    assert len({_workdir(name, 0) for name in variants}) == len(variants)
