"""Where a run's time goes, and which steps can be traced."""

import pytest

from configs import demo
from tmanet_jax import settings
from tmanet_jax.errors import UserError
from tmanet_jax.training.logs import Part, Progress, RunClock


class Seconds:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_second_counts_once_and_the_start_ends_with_the_first_step() -> None:
    seconds = Seconds()
    clock = RunClock(seconds)
    for step in range(3):
        with clock.within(Part.DATA):
            seconds.now += 2
        seconds.now += 10 if step == 0 else 1  # the first one compiles
        clock.step_done(num_clips=4)
    with clock.within(Part.EVALUATION):
        seconds.now += 2
    assert clock.point() == pytest.approx(
        {
            "time/start": 12 / 20,
            "time/steps": 2 / 20,
            "time/data": 4 / 20,
            "time/checkpoint": 0,
            "time/evaluation": 2 / 20,
            "speed/clips_per_second": 2 * 4 / 6,
        }
    )
    with clock.within(Part.CHECKPOINT):
        seconds.now += 5
    point = clock.point()
    assert point["time/checkpoint"] == 1
    assert sum(share for name, share in point.items() if name.startswith("time/")) == 1
    assert str(clock) == (
        "time:     25 s: start 48.0%, steps 8.0%, data 16.0%, checkpoint 20.0%, evaluation 8.0%"
    )


def test_a_run_that_only_scores_spends_its_time_there() -> None:
    seconds = Seconds()
    clock = RunClock(seconds)
    seconds.now += 1
    with clock.within(Part.EVALUATION), clock.within(Part.EVALUATION):
        seconds.now += 3
    assert "start 25.0%" in str(clock) and "evaluation 75.0%" in str(clock)


def test_a_part_ends_with_an_error() -> None:
    seconds = Seconds()
    clock = RunClock(seconds)
    clock.step_done(num_clips=4)
    with pytest.raises(StopIteration), clock.within(Part.DATA):
        next(iter(()))
    seconds.now += 1
    assert clock.point()["time/steps"] == 1


def test_without_a_terminal_lines_say_how_far_a_run_is_and_compiling_counts_for_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = Seconds()
    monkeypatch.setattr("tmanet_jax.training.logs.time.monotonic", seconds)
    with Progress(first=10, total=20) as progress:
        for done, duration in ((11, 100), (12, 2), (13, 2)):
            seconds.now += duration
            progress.step(done)
            progress.point(done, f"loss {done}")
    printed = capsys.readouterr()
    assert "\r" not in printed.out + printed.err
    assert printed.out.splitlines() == [
        "step 11 of 20: loss 11",
        "step 12 of 20: loss 12, 0.5 steps/s, 00:16 left",
        "step 13 of 20: loss 13, 0.5 steps/s, 00:14 left",
    ]


@pytest.mark.parametrize("steps", [(0, 3), (3, 2), (3,), (1.5, 2)])
def test_steps_that_cannot_be_traced_are_refused(steps: tuple[int, ...]) -> None:
    config = demo.get_config()
    with config.unlocked():
        config.profile = steps
    with pytest.raises(UserError, match=r"config\.profile must be .*the first and the last step"):
        settings.from_config(config)
