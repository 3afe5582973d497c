"""What a snippet shows: the street, what stands and moves on it, and the drive through it.

Street coordinates are metres: `along` the street, `lateral` to the right of its centre line, and
`height` above the road.  A street may bend; its coordinates bend with it.  Colours are BGR, 0..255.
"""

import dataclasses
import math

import numpy as np

SNIPPET_FRAMES = 30
ANNOTATED_FRAME = 19
STREET_LENGTH = 84.0  # metres; a wall closes the street there
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
        pixels_Px2 = np.empty((len(points_Px3), 2))
        pixels_Px2[:, 0] = self.centre + pixels_per_metre_P * across_P
        pixels_Px2[:, 1] = self.horizon + pixels_per_metre_P * (self.height - points_Px3[:, 2])
        return pixels_Px2, depth_P


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

    def at_night(self) -> "Light":
        """The same weather by the light of lamps: dim, cold, close and noisy."""
        dim = (0.42, 0.31, 0.26)
        return dataclasses.replace(
            self,
            tint=(self.tint[0] * dim[0], self.tint[1] * dim[1], self.tint[2] * dim[2]),
            contrast=self.contrast * 0.85,
            haze=(52.0, 40.0, 34.0),
            haze_distance=self.haze_distance * 0.35,
            sun=0.0,
            noise=self.noise * 2.5,
        )


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

    outline: str  # round, triangle, diamond, square or octagon
    size: float  # metres
    rim: Colour
    face: Colour
    mark: Colour


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
