"""Outlines of cars, people, poles and signs as coloured convex polygons, in metres.

A shape's points are (along, lateral, height) from the spot on the ground where the thing is.
"""

import dataclasses
import math

import numpy as np

from data_prep.street.scene import Car, Colour, Person, Plate, Pole

_TYRE: Colour = (26, 26, 28)
_GLASS: Colour = (70, 60, 50)
_SILL = 0.24  # metres between the road and a car's body
_WAIST = 0.95  # metres at which a car's windows begin


@dataclasses.dataclass(frozen=True)
class Shape:
    """Convex polygons in the order of painting."""

    points_Px3: np.ndarray  # the polygons' corners, one polygon after the other
    corners: tuple[int, ...]  # how many corners each polygon has
    colours: tuple[Colour, ...]


class _Builder:
    """Collects polygons into a Shape.

    Corners are either (along, lateral, height), or all (lateral, height) of something flat that
    faces the camera.
    """

    def __init__(self) -> None:
        self._polygons: list[np.ndarray] = []
        self._colours: list[Colour] = []

    def add(self, points_NxD: np.ndarray, colour: Colour, factor: float = 1.0) -> None:
        """Adds a polygon whose colour is brightened by a factor."""
        self._polygons.append(points_NxD)
        blue, green, red = colour
        self._colours.append((blue * factor, green * factor, red * factor))

    def build(self) -> Shape:
        corners = tuple(len(points) for points in self._polygons)
        points_PxD = np.concatenate(self._polygons)
        if points_PxD.shape[1] == 2:
            points_PxD = _with_column(points_PxD, 0, 0.0)
        return Shape(points_PxD, corners, tuple(self._colours))


def _disc(x: float, y: float, radius: float, corners: int = 18, turn: float = 0.0) -> np.ndarray:
    angles_N = np.arange(corners) * (2 * math.pi / corners) + turn
    return np.stack([x + radius * np.cos(angles_N), y + radius * np.sin(angles_N)], axis=1)


def _box(left: float, right: float, low: float, high: float) -> np.ndarray:
    return np.array([[left, low], [right, low], [right, high], [left, high]])


def _limb(start: np.ndarray, end: np.ndarray, start_width: float, end_width: float) -> np.ndarray:
    """A tapering limb with rounded ends: seven corners."""
    forth = (end - start) / max(math.dist(start, end), 1e-6)
    across_forth_2x2 = np.array([[-forth[1], forth[0]], forth])
    start_3x2 = np.array([[-0.5, 0], [0, -0.25], [0.5, 0]]) * start_width
    end_4x2 = np.array([[0.5, 0], [0.3, 0.3], [-0.3, 0.3], [-0.5, 0]]) * end_width
    return np.concatenate([start_3x2 @ across_forth_2x2 + start, end_4x2 @ across_forth_2x2 + end])


def _with_column(points_Nx2: np.ndarray, column: int, value: float) -> np.ndarray:
    """Adds a third coordinate that is the same for all points."""
    points_Nx3 = np.full((len(points_Nx2), 3), float(value))
    points_Nx3[:, [other for other in range(3) if other != column]] = points_Nx2
    return points_Nx3


def _car_profile(car: Car) -> np.ndarray:
    """Corners (along, height) from the tail's foot over the roof to the nose's foot."""
    length, top = car.length, car.height
    bonnet, boot = car.bonnet * length, car.boot * length
    return np.array(
        [
            [0.0, _SILL],
            [0.0, 0.62],
            [0.06, _WAIST],
            [0.06 + boot, _WAIST + 0.05],
            [0.3 + boot, top - 0.04],
            [0.5 + boot, top],
            [length - bonnet - 0.75, top],
            [length - bonnet, _WAIST + 0.02],
            [length - 0.14, 0.74],
            [length, 0.58],
            [length, _SILL],
        ]
    )


# Paint factor of each piece of the profile; None is glass.
_CAR_PIECES = (0.78, 0.92, 1.15, None, 1.15, 1.25, None, 1.12, 0.95, 0.75)


class _CarFrame:
    """Places points of a car's (along, across -1..1, height) in the world."""

    def __init__(self, car: Car) -> None:
        self._car = car

    def place(self, along_across_height_Nx3: np.ndarray) -> np.ndarray:
        car = self._car
        along_N, across_N, height_N = along_across_height_Nx3.T
        lean_N = 1 - 0.17 * np.clip((height_N - _WAIST) / (car.height - _WAIST), 0, 1)
        if car.oncoming:
            along_N = car.length - along_N
        return np.stack([along_N, across_N * lean_N * car.width / 2, height_N], axis=1)

    def strip(self, piece_2x2: np.ndarray, left: float, right: float) -> np.ndarray:
        """The part of a profile's piece between two shares of the width."""
        (a0, h0), (a1, h1) = piece_2x2
        return self.place(
            np.array([[a0, left, h0], [a0, right, h0], [a1, right, h1], [a1, left, h1]])
        )

    def side(self, along_height_Nx2: np.ndarray, across: float) -> np.ndarray:
        return self.place(_with_column(along_height_Nx2, 1, across))


def _part(piece_2x2: np.ndarray, low: float, high: float) -> np.ndarray:
    """The part of a profile's piece between two shares of its length."""
    start, end = piece_2x2
    return np.stack([start + (end - start) * low, start + (end - start) * high])


def car_shape(car: Car, seen_side: int) -> Shape:
    """A car as seen from the start of the street.

    Args:
        car: the car.
        seen_side: the side in view: -1 its left on the picture, 1 its right, 0 neither.
    """
    builder, frame, profile = _Builder(), _CarFrame(car), _car_profile(car)
    near_wheel = np.array([[0.1, 0.0], [0.1, 0.45]])
    if car.oncoming:
        near_wheel[:, 0] = car.length - 0.1
    for left, right in ((-0.95, -0.68), (0.68, 0.95)):
        builder.add(frame.strip(near_wheel, left, right), _TYRE)
    order = range(len(_CAR_PIECES)) if car.oncoming else reversed(range(len(_CAR_PIECES)))
    for index in order:
        piece, factor = profile[index : index + 2], _CAR_PIECES[index]
        if factor is None:
            builder.add(frame.strip(piece, -1, 1), car.paint, 0.8)
            builder.add(frame.strip(_part(piece, 0.08, 0.92), -0.86, 0.86), _GLASS)
            builder.add(frame.strip(_part(piece, 0.5, 0.9), -0.8, 0.1), _GLASS, 1.35)
        else:
            builder.add(frame.strip(piece, -1, 1), car.paint, factor)
    _add_end(builder, frame, profile, car.oncoming)
    if seen_side:
        _add_side(builder, frame, profile, car, seen_side)
    return builder.build()


def _add_end(builder: _Builder, frame: _CarFrame, profile: np.ndarray, front: bool) -> None:
    """Lights, number plate and bumper of the end that faces the camera."""
    lower, upper = (
        (profile[9:11][::-1], profile[8:10][::-1]) if front else (profile[:2], profile[1:3])
    )
    lights: Colour = (225, 240, 248) if front else (30, 24, 205)
    builder.add(frame.strip(_part(lower, 0, 0.35), -0.98, 0.98), (40, 40, 42))
    builder.add(frame.strip(_part(lower, 0.5, 0.85), -0.28, 0.28), (225, 232, 235))
    if front:
        builder.add(frame.strip(_part(upper, 0.1, 0.7), -0.5, 0.5), (34, 34, 36))
    for left, right in ((-0.97, -0.66), (0.66, 0.97)):
        builder.add(frame.strip(_part(upper, 0.1, 0.85), left, right), lights)


def _add_side(
    builder: _Builder, frame: _CarFrame, profile: np.ndarray, car: Car, seen_side: int
) -> None:
    """Body, windows and wheels of one side."""
    body = profile[[0, 1, 2, 3, 7, 8, 9, 10]]
    cabin = profile[3:8]
    builder.add(frame.side(body, seen_side), car.paint, 0.9)
    builder.add(frame.side(cabin, seen_side), car.paint, 0.82)
    rear_foot, rear_top = profile[3], profile[5]
    front_top, front_foot = profile[6], profile[7]
    middle = 0.5 * (rear_foot[0] + front_foot[0])
    low, high = _WAIST + 0.06, car.height - 0.12
    for corners in (
        [
            [rear_foot[0] + 0.22, low],
            [middle - 0.05, low],
            [middle - 0.05, high],
            [rear_top[0], high],
        ],
        [
            [middle + 0.05, low],
            [front_foot[0] - 0.2, low],
            [front_top[0] + 0.05, high],
            [middle + 0.05, high],
        ],
    ):
        builder.add(frame.side(np.array(corners), seen_side), _GLASS, 0.9)
    door = _box(middle - 0.012, middle + 0.012, 0.36, _WAIST)
    builder.add(frame.side(door, seen_side), car.paint, 0.6)
    builder.add(frame.side(_box(0.3, car.length - 0.3, _SILL, 0.34), seen_side), (44, 44, 46))
    for along in (0.19 * car.length, 0.81 * car.length):
        for radius, colour in ((0.37, _TYRE), (0.21, (150, 150, 150)), (0.08, (70, 70, 70))):
            builder.add(frame.side(_disc(along, 0.35, radius), seen_side), colour)


def person_shape(person: Person, frame: int) -> Shape:
    """A walking person as in a frame."""
    builder = _Builder()
    size = person.height
    swing = math.sin(person.phase + person.stride * frame)
    crosses = abs(person.lateral_speed) > abs(person.along_speed)
    step = (0.17 if crosses else 0.035) * swing
    lift = 0.0 if crosses else 0.03
    spread = 0.02 if crosses else 0.058
    hip_width, shoulder = (0.15, 0.115) if crosses else (0.19, 0.15)
    # Left and right, the farther one first and darker.
    for side, factor in ((-1, 0.72), (1, 1.0)):
        foot = np.array([side * (spread + step), 0.035 + max(0.0, lift * side * swing)])
        hip = np.array([side * spread * 0.8, 0.5])
        knee = 0.5 * (foot + hip) + np.array([0.02 * np.sign(person.lateral_speed), 0.015])
        builder.add(_limb(hip, knee, 0.13, 0.11) * size, person.trousers, factor)
        builder.add(_limb(knee, foot, 0.11, 0.09) * size, person.trousers, factor)
        shoe = _box(foot[0] - 0.05, foot[0] + 0.05, foot[1] - 0.035, foot[1] + 0.012)
        builder.add(shoe * size, (30, 32, 36))
    hem = 0.47 - 0.2 * person.coat_length
    for side, factor in ((-1, 0.7), (1, 0.9)):
        hand = np.array([side * (shoulder + 0.03 - step * 0.8), 0.47])
        builder.add(
            _limb(np.array([side * shoulder * 0.9, 0.79]), hand, 0.095, 0.075) * size,
            person.coat,
            factor,
        )
        builder.add(_disc(hand[0], hand[1] - 0.015, 0.03, 6) * size, person.skin)
    torso = np.array(
        [
            [-hip_width * (0.55 + 0.15 * person.coat_length), hem],
            [hip_width * (0.55 + 0.15 * person.coat_length), hem],
            [shoulder, 0.76],
            [shoulder * 0.75, 0.83],
            [-shoulder * 0.75, 0.83],
            [-shoulder, 0.76],
        ]
    )
    builder.add(torso * size, person.coat)
    builder.add(torso[[1, 2, 3]] * size, person.coat, 0.8)
    if person.bag is not None:
        behind = -math.copysign(0.1, person.lateral_speed) if crosses else 0.0
        bag = _box(behind - 0.085, behind + 0.085, 0.55, 0.78)
        builder.add(bag * size, person.bag)
    builder.add(_box(-0.03, 0.03, 0.81, 0.87) * size, person.skin, 0.85)
    builder.add(_disc(0.0, 0.92, 0.072) * size, person.skin)
    faces_away = not crosses and person.along_speed > 0
    hair = _disc(0.0, 0.945, 0.07) if faces_away else _disc(0.0, 0.968, 0.052)
    builder.add(hair * size, person.hair)
    return builder.build()


def pole_shape(pole: Pole) -> Shape:
    """A pole, lit from one side, with a lamp's arm if it has one; its plates are shapes apart."""
    builder = _Builder()
    half, inward = pole.width / 2, -math.copysign(1.0, pole.lateral)
    builder.add(_box(-half * 1.25, half * 1.25, 0.0, 0.7), pole.colour, 0.8)
    builder.add(_box(-half, half, 0.0, pole.height), pole.colour)
    builder.add(_box(-half, -half * 0.3, 0.0, pole.height), pole.colour, 1.3)
    builder.add(_box(half * 0.4, half, 0.0, pole.height), pole.colour, 0.66)
    if pole.arm:
        tip = inward * pole.arm
        arm = _box(0.0, tip, pole.height - 0.3, pole.height)
        builder.add(arm, pole.colour, 0.9)
        lamp = _box(tip, tip + inward * 0.7, pole.height - 0.36, pole.height - 0.08)
        builder.add(lamp, (190, 215, 225))
    return builder.build()


_PLATE_CORNERS = {
    "round": (20, 0.0),
    "triangle": (3, 0.5),
    "diamond": (4, 0.5),
    "square": (4, 0.25),
    "octagon": (8, 0.125),
}


def plate_shape(plate: Plate, height: float) -> Shape:
    """A sign's face, its middle `height` metres above the ground."""
    builder = _Builder()
    corners, turn = _PLATE_CORNERS[plate.outline]
    angle = math.pi * turn if corners != 8 else math.pi / 8
    radius = plate.size / 2 * (1.15 if corners in (3, 4) else 1.0)
    builder.add(_disc(0.0, height, radius, corners, angle), plate.rim)
    builder.add(_disc(0.0, height, radius * 0.74, corners, angle), plate.face)
    mark = plate.size * np.array([-0.2, 0.2, -0.065, 0.065])
    builder.add(_box(mark[0], mark[1], height + mark[2], height + mark[3]), plate.mark)
    return builder.build()
