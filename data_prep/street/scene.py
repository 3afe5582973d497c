"""What a snippet shows: the street, what stands and moves on it, and the drive through it.

Street coordinates are metres: `along` the street, `lateral` to the right of its centre line, and
`height` above the road.  A street may bend; its coordinates bend with it.  Colours are BGR, 0..255.
"""

import dataclasses
import math

import numpy as np

SNIPPET_FRAMES = 30
ANNOTATED_FRAME = 19
STREET_LENGTH = 100.0  # metres; a wall closes the street there
FURNISHED_LENGTH = 40.0  # metres within which small things are ever large enough to be drawn
NEAREST_DEPTH = 0.6  # metres; what is nearer to the camera is drawn at this depth

Colour = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera in street coordinates; pixel centres are at whole numbers."""

    focal: float  # pixels
    centre: float  # column of the principal point
    horizon: float  # row of the horizon
    height: float  # metres
    along: float  # metres
    lateral: float  # metres
    heading: float  # tangent of the angle to the street, positive to the right
    curvature: float  # 1/metres, positive for a bend to the right

    def project(self, points_Px3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projects points (along, lateral, height) to pixels (column, row) and depths in metres."""
        depth_P = np.maximum(points_Px3[:, 0] - self.along, NEAREST_DEPTH)
        across_P = points_Px3[:, 1] - self.lateral
        across_P = across_P + (0.5 * self.curvature * depth_P - self.heading) * depth_P
        pixels_per_metre_P = self.focal / depth_P
        columns_P = self.centre + pixels_per_metre_P * across_P
        rows_P = self.horizon + pixels_per_metre_P * (self.height - points_Px3[:, 2])
        return np.stack([columns_P, rows_P], axis=1), depth_P


@dataclasses.dataclass(frozen=True)
class Drive:
    """How the camera moves through a snippet: forward, swaying a little."""

    speed: float  # metres a frame
    lateral: float  # metres
    height: float  # metres
    focal_per_width: float
    horizon_per_height: float
    curvature: float
    sway: float  # 0 for a perfect ride
    phase: float  # radians

    def camera(self, frame: int, height: int, width: int) -> Camera:
        """The camera of a frame whose image has the given size in pixels."""
        wave = self.phase + 0.16 * frame
        return Camera(
            focal=self.focal_per_width * width,
            centre=(width - 1) / 2,
            horizon=(self.horizon_per_height + 0.006 * self.sway * math.sin(4.3 * wave)) * height,
            height=self.height,
            along=self.speed * frame,
            lateral=self.lateral + 0.12 * self.sway * math.sin(wave),
            heading=0.02 * self.sway * math.sin(0.7 * wave + 1),
            curvature=self.curvature,
        )


@dataclasses.dataclass(frozen=True)
class Light:
    """Time of day and weather."""

    tint: Colour  # gain of each channel
    contrast: float
    flicker: float  # amplitude of the exposure's change over time
    phase: float
    haze: Colour
    haze_distance: float  # metres after which 63% of a colour is haze
    sunlit_side: int  # -1 left, 1 right: the side whose walls lie in the sun
    sun: float  # 0 overcast .. 1 bright
    noise: float  # sensor noise, standard deviation in grey levels

    def gain(self, frame: int) -> np.ndarray:
        """Gain of the three channels in a frame."""
        wave = self.phase + 0.22 * frame
        warmth = 0.4 * self.flicker * math.sin(0.6 * wave)
        exposure = 1 + self.flicker * math.sin(wave)
        return np.array(self.tint) * exposure * np.array([1 - warmth, 1, 1 + warmth])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
    """Something that stands or moves on the street."""

    along: float
    lateral: float
    along_speed: float = 0.0  # metres a frame
    lateral_speed: float = 0.0

    def position(self, frame: int) -> tuple[float, float]:
        """Where it is in a frame: along and lateral, metres."""
        return self.along + self.along_speed * frame, self.lateral + self.lateral_speed * frame


@dataclasses.dataclass(frozen=True, kw_only=True)
class Car(Thing):
    """A car; `along` is its end that is nearer to the start of the street."""

    length: float
    width: float
    height: float
    bonnet: float  # share of the length
    boot: float  # share of the length
    paint: Colour
    oncoming: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person(Thing):
    """A person who walks, turned as the speed says."""

    height: float
    coat: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    coat_length: float  # 0 a jacket .. 1 to the knees
    bag: Colour | None
    stride: float  # radians a frame
    phase: float


@dataclasses.dataclass(frozen=True)
class Plate:
    """A traffic sign's face."""

    outline: str  # one of PLATE_OUTLINES
    size: float  # metres
    rim: Colour
    face: Colour
    mark: Colour


PLATE_OUTLINES = ("round", "triangle", "diamond", "square", "octagon")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pole(Thing):
    """A pole: a lamp post, or the post of traffic signs."""

    height: float
    width: float
    colour: Colour
    arm: float  # metres that a lamp reaches over the road; 0 for none
    plates: tuple[Plate, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plant(Thing):
    """A tree or a bush; `kind` counts the street's plant pictures."""

    width: float
    height: float
    kind: int


@dataclasses.dataclass(frozen=True)
class Street:
    """Everything that a snippet shows, and how it is seen."""

    drive: Drive
    light: Light
    road_half_width: float
    walk_widths: tuple[float, float]  # left and right pavement
    crossing: float  # where a zebra crossing lies along the street
    dashed: bool  # the centre line
    asphalt: Colour
    paving: Colour
    foliage: Colour
    things: tuple[Thing, ...]

    @property
    def wall_laterals(self) -> tuple[float, float]:
        """Lateral positions of the house fronts, left and right."""
        left, right = self.walk_widths
        return -self.road_half_width - left, self.road_half_width + right


def draw_street(rng: np.random.Generator) -> Street:
    """Draws a street at random."""
    road_half_width = rng.uniform(4.2, 5.6)
    walk_widths = (rng.uniform(2.6, 4.4), rng.uniform(2.6, 4.4))
    drive = _draw_drive(rng, road_half_width)
    crossing = drive.speed * ANNOTATED_FRAME + rng.uniform(6, 13)
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
    while spots[-1] < FURNISHED_LENGTH:
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
    parked_share = rng.uniform(0.25, 0.8)
    for side in (-1, 1):
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
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.25, 0.3, 0.3, 0.15])):
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
