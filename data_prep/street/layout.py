"""Draws streets at random: how wide, in what light, and what stands and moves where."""

import math

import numpy as np

from data_prep.street.scene import (
    ANNOTATED_FRAME,
    Car,
    Colour,
    Drive,
    Light,
    Person,
    Plant,
    Plate,
    Pole,
    Street,
)

_FURNISHED_LENGTH = 40.0  # metres within which small things are ever large enough to be drawn


def draw_street(rng: np.random.Generator) -> Street:
    """Draws a street at random."""
    road_half_width = rng.uniform(4.2, 5.6)
    walk_widths = (rng.uniform(3.2, 5.4), rng.uniform(3.2, 5.4))
    drive = _draw_drive(rng, road_half_width)
    crossing = drive.speed * ANNOTATED_FRAME + rng.uniform(5.5, 11.5)
    grey = rng.uniform(62, 98)
    pale = rng.uniform(125, 172)
    warm = rng.uniform(-0.02, 0.14)
    return Street(
        drive=drive,
        light=_draw_light(rng),
        road_half_width=road_half_width,
        walk_widths=walk_widths,
        crossing=crossing,
        dashed=bool(rng.random() < 0.7),
        asphalt=(grey * rng.uniform(0.98, 1.1), grey, grey * rng.uniform(0.95, 1.03)),
        paving=(pale * (1 - warm), pale, pale * (1 + warm)),
        foliage=_draw_foliage(rng),
        things=(
            *_draw_cars(rng, drive, road_half_width),
            *_draw_people(rng, drive, road_half_width, walk_widths, crossing),
            *_draw_poles(rng, road_half_width),
            *_draw_plants(rng, road_half_width, walk_widths),
        ),
    )


def _draw_drive(rng: np.random.Generator, road_half_width: float) -> Drive:
    straight = rng.random() < 0.4
    return Drive(
        speed=rng.uniform(0.15, 0.42),
        lateral=rng.uniform(0.9, road_half_width - 2.9),
        height=rng.uniform(1.35, 1.7),
        focal_per_width=rng.uniform(0.76, 0.86),
        horizon_per_height=rng.uniform(0.42, 0.5),
        curvature=0.0 if straight else rng.uniform(-0.014, 0.014),
        sway=rng.uniform(0.3, 1.2),
        phase=rng.uniform(0, 2 * math.pi),
    )


def _draw_light(rng: np.random.Generator) -> Light:
    kind = rng.choice(["sunny", "overcast", "evening"], p=[0.5, 0.32, 0.18])
    exposure = rng.uniform(0.9, 1.12)
    if kind == "sunny":
        tint, haze, sun = (0.95, 1.0, 1.05), (235, 222, 205), rng.uniform(0.6, 1.0)
    elif kind == "overcast":
        tint, haze, sun = (1.03, 0.98, 0.94), (215, 212, 208), rng.uniform(0.0, 0.25)
        exposure *= 0.92
    else:
        tint, haze, sun = (0.74, 0.86, 1.02), (150, 180, 232), rng.uniform(0.4, 0.9)
        exposure *= 0.86
    return Light(
        tint=(tint[0] * exposure, tint[1] * exposure, tint[2] * exposure),
        contrast=rng.uniform(0.92, 1.15),
        flicker=rng.uniform(0.02, 0.09),
        phase=rng.uniform(0, 2 * math.pi),
        haze=haze,
        haze_distance=rng.uniform(90, 320),
        sunlit_side=int(rng.choice([-1, 1])),
        sun=sun,
        noise=rng.uniform(1.5, 4.5),
    )


def _draw_foliage(rng: np.random.Generator) -> Colour:
    autumn = rng.random() < 0.15
    green = rng.uniform(88, 132)
    if autumn:
        return (green * 0.3, green * 0.95, green * rng.uniform(1.05, 1.35))
    return (green * rng.uniform(0.35, 0.65), green, green * rng.uniform(0.5, 0.85))


def _spots(rng: np.random.Generator, start: float, spacing: tuple[float, float]) -> list[float]:
    """Positions along the furnished street with random gaps."""
    spots = [start + rng.uniform(0, spacing[1])]
    while spots[-1] < _FURNISHED_LENGTH:
        spots.append(spots[-1] + rng.uniform(*spacing))
    return spots


_PAINTS: tuple[Colour, ...] = (
    (38, 36, 36),
    (205, 205, 205),
    (232, 234, 235),
    (120, 118, 114),
    (40, 32, 150),
    (120, 62, 30),
    (60, 90, 40),
    (70, 150, 205),
    (150, 110, 60),
    (32, 88, 190),
)


def _draw_car(
    rng: np.random.Generator, along: float, lateral: float, speed: float, oncoming: bool
) -> Car:
    van = rng.random() < 0.2
    return Car(
        along=along,
        lateral=lateral,
        along_speed=speed,
        length=rng.uniform(4.4, 5.1) if van else rng.uniform(3.7, 4.7),
        width=rng.uniform(1.72, 1.9),
        height=rng.uniform(1.9, 2.2) if van else rng.uniform(1.42, 1.68),
        bonnet=rng.uniform(0.08, 0.14) if van else rng.uniform(0.2, 0.28),
        boot=0.02 if van else rng.choice([0.04, rng.uniform(0.1, 0.17)]),
        paint=_PAINTS[rng.integers(len(_PAINTS))],
        oncoming=oncoming,
    )


def _draw_cars(rng: np.random.Generator, drive: Drive, road_half_width: float) -> list[Car]:
    cars = []
    for side in (-1, 1):
        parked_share = rng.uniform(0.2, 0.7) if side < 0 else rng.uniform(0.0, 0.55)
        for along in _spots(rng, 4.0, (5.6, 9.0)):
            if rng.random() < parked_share:
                lateral = side * (road_half_width - rng.uniform(0.95, 1.1))
                cars.append(_draw_car(rng, along, lateral, 0.0, oncoming=side < 0))
    if rng.random() < 0.55:
        gap = rng.uniform(8, 14) + drive.speed * ANNOTATED_FRAME
        speed = drive.speed * rng.uniform(0.8, 1.15)
        along = gap - speed * ANNOTATED_FRAME
        cars.append(_draw_car(rng, along, drive.lateral + rng.uniform(-0.4, 0.4), speed, False))
    if rng.random() < 0.6:
        meets = drive.speed * ANNOTATED_FRAME + rng.uniform(6, 14)
        speed = -rng.uniform(0.15, 0.4)
        along = meets - speed * ANNOTATED_FRAME
        cars.append(_draw_car(rng, along, -rng.uniform(1.2, 1.9), speed, True))
    return cars


_SKINS: tuple[Colour, ...] = ((150, 180, 225), (115, 150, 200), (70, 100, 150), (45, 65, 100))


def _draw_person(
    rng: np.random.Generator, along: float, lateral: float, velocity: tuple[float, float]
) -> Person:
    hue = rng.uniform(0, 2 * math.pi)
    bright = rng.uniform(45, 190)
    colourful = rng.uniform(0.2, 0.75)
    coat = [bright * (1 + colourful * math.cos(hue + turn)) for turn in (0, 2.1, 4.2)]
    dark = rng.uniform(25, 95)
    carries = rng.random() < 0.45
    return Person(
        along=along,
        lateral=lateral,
        along_speed=velocity[0],
        lateral_speed=velocity[1],
        height=rng.uniform(1.62, 1.95),
        coat=(min(coat[0], 255.0), min(coat[1], 255.0), min(coat[2], 255.0)),
        trousers=(dark * rng.uniform(1, 1.6), dark, dark * rng.uniform(0.8, 1.1)),
        skin=_SKINS[rng.integers(len(_SKINS))],
        hair=(30, 40, rng.uniform(40, 90)),
        coat_length=float(rng.choice([0.0, 0.35, 0.8])),
        bag=(40, rng.uniform(30, 90), rng.uniform(60, 170)) if carries else None,
        stride=rng.uniform(0.28, 0.42),
        phase=rng.uniform(0, 2 * math.pi),
    )


def _draw_people(
    rng: np.random.Generator,
    drive: Drive,
    road_half_width: float,
    walk_widths: tuple[float, float],
    crossing: float,
) -> list[Person]:
    people = []
    spacing = rng.uniform(2.4, 4.5)
    for side, walk_width in zip((-1, 1), walk_widths, strict=True):
        for along in _spots(rng, 2.0, (0.5 * spacing, 1.8 * spacing)):
            lateral = side * (road_half_width + rng.uniform(0.6, walk_width - 0.5))
            speed = float(rng.choice([-1, 1])) * rng.uniform(0.04, 0.085)
            people.append(_draw_person(rng, along, lateral, (speed, 0.0)))
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.15, 0.3, 0.35, 0.2])):
        speed = float(rng.choice([-1, 1])) * rng.uniform(0.05, 0.09)
        lateral = drive.lateral + rng.uniform(-4.0, 3.0) - speed * ANNOTATED_FRAME
        along = crossing + rng.uniform(-1.2, 1.2)
        people.append(_draw_person(rng, along, lateral, (0.0, speed)))
    return people


_RED, _BLUE, _WHITE, _BLACK = (36, 28, 200), (168, 84, 24), (238, 238, 238), (24, 24, 24)
_YELLOW = (30, 190, 245)
_PLATES = (
    ("round", _RED, _WHITE, _BLACK),
    ("round", _RED, _RED, _WHITE),
    ("round", _WHITE, _BLUE, _WHITE),
    ("triangle", _RED, _WHITE, _BLACK),
    ("diamond", _WHITE, _YELLOW, _YELLOW),
    ("square", _WHITE, _BLUE, _WHITE),
    ("octagon", _WHITE, _RED, _WHITE),
)


def _draw_plates(rng: np.random.Generator) -> tuple[Plate, ...]:
    plates = []
    for _ in range(rng.choice([1, 2], p=[0.6, 0.4])):
        outline, rim, face, mark = _PLATES[rng.integers(len(_PLATES))]
        plates.append(Plate(outline, rng.uniform(0.85, 1.15), rim, face, mark))
    return tuple(plates)


def _draw_poles(rng: np.random.Generator, road_half_width: float) -> list[Pole]:
    spacing = rng.uniform(3.6, 5.2)
    grey = rng.uniform(70, 150)
    palette = ((grey, grey, grey), (70, 82, 58), (58, 60, 66), (150, 156, 160))
    colour = palette[rng.integers(len(palette))]
    poles = []
    for side in (-1, 1):
        for along in _spots(rng, 2.0, (0.75 * spacing, 1.25 * spacing)):
            signed = rng.random() < 0.6
            poles.append(
                Pole(
                    along=along,
                    lateral=side * (road_half_width + rng.uniform(0.3, 0.6)),
                    height=rng.uniform(3.1, 3.8) if signed else rng.uniform(4.5, 7.5),
                    width=rng.uniform(0.3, 0.4),
                    colour=colour,
                    arm=0.0 if signed else float(rng.choice([0.0, 1.6])),
                    plates=_draw_plates(rng) if signed else (),
                )
            )
    return poles


def _draw_plants(
    rng: np.random.Generator, road_half_width: float, walk_widths: tuple[float, float]
) -> list[Plant]:
    plants = []
    for side, walk_width in zip((-1, 1), walk_widths, strict=True):
        lush = rng.uniform(0.2, 1.0)
        for along in (*_spots(rng, 6.0, (6.0, 11.0)), 50.0, 60.0, 70.0):
            if rng.random() < lush:
                width = rng.uniform(2.8, 4.8)
                lateral = side * (road_half_width + rng.uniform(0.6, 1.1))
                height = width * rng.uniform(1.25, 1.6)
                kind = int(rng.integers(2))
                plants.append(
                    Plant(along=along, lateral=lateral, width=width, height=height, kind=kind)
                )
        for along in _spots(rng, 4.0, (4.0, 10.0)):
            if rng.random() < lush:
                width = rng.uniform(1.4, 2.6)
                lateral = side * (road_half_width + walk_width - rng.uniform(0.2, 0.5))
                height = width * rng.uniform(0.55, 0.9)
                plants.append(
                    Plant(along=along, lateral=lateral, width=width, height=height, kind=2)
                )
    return plants
