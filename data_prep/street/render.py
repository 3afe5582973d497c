"""Draws the frames of a snippet and their exact label maps at any size.

Things are painted over the background from far to near.  What would be too small for its class to
be told at this resolution is not drawn at all, so that picture and labels agree.
"""

import dataclasses
import functools
import math
import zlib

import cv2
import numpy as np

from data_prep.street import shapes, textures
from data_prep.street.background import (
    CAR,
    EGO_VEHICLE,
    PERSON,
    POLE,
    TRAFFIC_SIGN,
    VEGETATION,
    Background,
    Frame,
)
from data_prep.street.degradations import degrade
from data_prep.street.layout import draw_street
from data_prep.street.scene import ANNOTATED_FRAME, Camera, Car, Person, Plant, Pole, Street, Thing

# Sizes at which things begin to be drawn: pixels of an image 256 wide, as shares of its width.
_LEAST_SHARES: dict[type[Thing], float] = {
    Pole: 5 / 256,
    Car: 20 / 256,
    Person: 28 / 256,
    Plant: 16 / 256,
}
_SUBPIXEL_BITS = 4
_NEAREST_DEPTH = 1.2  # metres; what is nearer is out of view at the sides
_REACH = 2.5  # metres that a thing other than a car may reach to a side
_NOISE_SHIFTS = 64  # pixels by which the sensor's noise can be displaced


class SnippetRenderer:
    """Draws the frames of one snippet, in any order, each always alike.

    Args:
        street: what to draw.
        size: height and width of the frames in pixels.
        seed: of the textures and of the sensor's noise.
    """

    def __init__(self, street: Street, size: tuple[int, int], seed: tuple[int, ...]) -> None:
        self._street, self._size, self._seed = street, size, seed
        rng = np.random.default_rng([*seed, 0])
        self._background = Background(street, size, rng)
        focal = street.drive.focal_per_width * size[1]
        self._plants = tuple(
            textures.plant_sprite(
                rng,
                street.foliage,
                height=round(focal * (0.5 if tree else 0.2)),
                pixels_per_metre=focal / (11 if tree else 7),
                tree=tree,
            )
            for tree in (True, True, False)
        )
        self._car_shape = functools.cache(shapes.car_shape)
        self._pole_shape = functools.cache(shapes.pole_shape)
        self._plate_shape = functools.cache(shapes.plate_shape)
        self._hood = rng.uniform(0.045, 0.075)
        self._hood_colour = rng.uniform(20, 90) * np.array([1.05, 1.0, 0.97])

    def draw(self, frame: int) -> Frame:
        """Draws one frame of the snippet."""
        height, width = self._size
        camera = self._street.drive.camera(frame, height, width)
        picture = self._background.draw(camera)
        things = [
            (thing.position(frame), thing)
            for thing in self._street.things
            if self._shows(thing, frame, camera)
        ]
        things.sort(key=lambda item: -item[0][0])
        self._shade_ground(picture.image_HxWx3, camera, things)
        for (along, lateral), thing in things:
            spot = np.array([along, lateral, 0.0])
            if isinstance(thing, Plant):
                self._paste(picture, camera, self._plants[thing.kind], thing, spot)
            elif isinstance(thing, Car):
                self._paint(picture, camera, self._car(thing, lateral, camera), spot, CAR)
            elif isinstance(thing, Person):
                self._paint(picture, camera, shapes.person_shape(thing, frame), spot, PERSON)
            elif isinstance(thing, Pole):
                self._paint_pole(picture, camera, thing, spot)
        self._expose(picture.image_HxWx3, frame)
        self._paint_hood(picture)
        self._add_noise(picture.image_HxWx3, frame)
        return picture

    def _shows(self, thing: Thing, frame: int, camera: Camera) -> bool:
        """Whether a thing is in view and large enough to be told."""
        along, lateral = thing.position(frame)
        depth = along - camera.along
        share_of_metre = camera.focal / max(depth, 0.1) / self._size[1]
        if share_of_metre * _told_by(thing) < _LEAST_SHARES[type(thing)]:
            return False
        if isinstance(thing, Car):
            return depth > -thing.length
        if depth < _NEAREST_DEPTH:
            return False
        pixels_1x2, _ = camera.project(np.array([[along, lateral, 0.0]]))
        off_centre = abs(float(pixels_1x2[0, 0]) / self._size[1] - 0.5)
        return off_centre < 0.5 + _REACH * share_of_metre

    def _car(self, car: Car, lateral: float, camera: Camera) -> shapes.Shape:
        # In a bend the camera sees a car's side as it would a straight street's farther along.
        middle = car.along + 0.5 * car.length - camera.along
        across = lateral - camera.lateral - 0.5 * camera.curvature * middle**2
        side = 0 if abs(across) < car.width / 2 else -int(math.copysign(1, across))
        return self._car_shape(car, side)

    def _haze(self, depth: float) -> float:
        return 1 - math.exp(-max(depth, 0) / self._street.light.haze_distance)

    def _paint(
        self, picture: Frame, camera: Camera, shape: shapes.Shape, spot: np.ndarray, label: int
    ) -> None:
        """Paints a shape's polygons, and its outline into the labels."""
        height, width = self._size
        pixels_Px2, depth_P = camera.project(shape.points_Px3 + spot)
        left, top = np.maximum(np.floor(pixels_Px2.min(axis=0)).astype(int) - 1, 0)
        right, bottom = np.ceil(pixels_Px2.max(axis=0)).astype(int) + 2
        right, bottom = min(right, width), min(bottom, height)
        if left >= right or top >= bottom:
            return
        pixels_Px2 = np.clip(pixels_Px2, -4 * width, 5 * width)
        fixed_Px2 = np.rint(pixels_Px2 * 2**_SUBPIXEL_BITS).astype(np.int32)
        offset = np.array([left, top], np.int32) * 2**_SUBPIXEL_BITS
        mask = np.zeros((bottom - top, right - left), np.uint8)
        haze = self._haze(float(depth_P.mean()))
        veil = [haze * channel for channel in self._street.light.haze]
        start = 0
        for corners, colour in zip(shape.corners, shape.colours, strict=True):
            polygon = fixed_Px2[start : start + corners]
            start += corners
            seen = tuple(c * (1 - haze) + v for c, v in zip(colour, veil, strict=True))
            cv2.fillConvexPoly(picture.image_HxWx3, polygon, seen, cv2.LINE_AA, _SUBPIXEL_BITS)
            cv2.fillConvexPoly(mask, polygon - offset, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        picture.labels_HxW[top:bottom, left:right][mask >= 128] = label

    def _paint_pole(self, picture: Frame, camera: Camera, pole: Pole, spot: np.ndarray) -> None:
        self._paint(picture, camera, self._pole_shape(pole), spot, POLE)
        top = pole.height - 0.1
        for plate in pole.plates:
            middle = top - plate.size / 2
            shape = self._plate_shape(plate, middle)
            self._paint(picture, camera, shape, spot, TRAFFIC_SIGN)
            top -= plate.size * 1.12

    def _paste(
        self,
        picture: Frame,
        camera: Camera,
        sprite: textures.Sprite,
        plant: Plant,
        spot: np.ndarray,
    ) -> None:
        """Pastes a plant's picture so that it stands on the ground."""
        foot_1x2, depth_1 = camera.project(spot[None])
        depth = float(depth_1[0])
        shown_width = plant.width * camera.focal / depth
        shown_height = plant.height * camera.focal / depth
        # Pixel edges: a pixel's centre is half a pixel right of its left edge.
        x = float(foot_1x2[0, 0]) + 0.5 - shown_width / 2
        y = float(foot_1x2[0, 1]) + 0.5 - shown_height
        height, width = self._size
        left, top = max(math.floor(x), 0), max(math.floor(y), 0)
        right = min(math.ceil(x + shown_width), width)
        bottom = min(math.ceil(y + shown_height), height)
        if left >= right or top >= bottom:
            return
        level = _nearest_level(sprite, shown_height)
        scale_x, scale_y = level.shape[1] / shown_width, level.shape[0] / shown_height
        to_level_2x3 = np.array(
            [
                [scale_x, 0, (left + 0.5 - x) * scale_x - 0.5],
                [0, scale_y, (top + 0.5 - y) * scale_y - 0.5],
            ]
        )
        cast_RxCx4 = cv2.warpAffine(
            level,
            to_level_2x3,
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        alpha_RxCx1 = cast_RxCx4[..., 3:] * np.float32(1 / 255)
        haze = self._haze(depth)
        veil = np.array(self._street.light.haze, np.float32) * haze
        behind = picture.image_HxWx3[top:bottom, left:right]
        front = cast_RxCx4[..., :3] * np.float32(1 - haze) + alpha_RxCx1 * veil
        behind[:] = front + behind * (1 - alpha_RxCx1)
        picture.labels_HxW[top:bottom, left:right][cast_RxCx4[..., 3] >= 128] = VEGETATION

    def _shade_ground(
        self,
        image_HxWx3: np.ndarray,
        camera: Camera,
        things: list[tuple[tuple[float, float], Thing]],
    ) -> None:
        """Darkens the ground beneath things."""
        height, width = self._size
        top = min(max(int(camera.horizon), 0), height - 1)
        shadow_HxW = np.zeros((height, width), np.uint8)
        strength = 90 + 50 * self._street.light.sun
        for (along, lateral), thing in things:
            half, length = 0.3, 0.5
            if isinstance(thing, Car):
                half, length = thing.width / 2 + 0.1, thing.length
            elif isinstance(thing, Plant):
                half, length = thing.width * 0.3, 0.8
            corners = [[0, -half, 0], [0, half, 0], [length, half, 0], [length, -half, 0]]
            ground_4x3 = np.array(corners) + np.array([along - 0.15, lateral, 0.0])
            pixels_4x2, _ = camera.project(ground_4x3)
            fixed = np.rint(np.clip(pixels_4x2, -4 * width, 5 * width) * 16).astype(np.int32)
            cv2.fillConvexPoly(shadow_HxW, fixed, strength, cv2.LINE_AA, _SUBPIXEL_BITS)
        blur = max(1, round(width / 256)) * 2 + 1
        shadow_HxWx1 = cv2.blur(shadow_HxW[top:], (blur, blur))[..., None]
        image_HxWx3[top:] = image_HxWx3[top:] * (1 - shadow_HxWx1 * np.float32(1 / 255))

    def _expose(self, image_HxWx3: np.ndarray, frame: int) -> None:
        light = self._street.light
        levels_256x1 = np.arange(256.0)[:, None]
        curve_256x3 = ((levels_256x1 - 110) * light.contrast + 110) * light.gain(frame)
        table = np.clip(curve_256x3, 0, 255).astype(np.uint8)
        cv2.LUT(image_HxWx3, table[None], dst=image_HxWx3)

    def _paint_hood(self, picture: Frame) -> None:
        """The camera's own car along the lower rim."""
        height, width = self._size
        top = height * (1 - self._hood)
        columns_W = np.linspace(-1, 1, width, dtype=np.float32)
        edge_W = top + 0.035 * height * columns_W**2
        first = int(top)
        depth_RxW = np.arange(first, height, dtype=np.float32)[:, None] - edge_W
        cover_RxWx1 = np.clip(depth_RxW + 0.5, 0, 1)[..., None]
        gloss_RxWx1 = (1.5 - depth_RxW / (0.08 * height))[..., None]
        behind = picture.image_HxWx3[first:]
        behind[:] = behind + (self._hood_colour * gloss_RxWx1 - behind) * cover_RxWx1
        picture.labels_HxW[first:][cover_RxWx1[..., 0] >= 0.5] = EGO_VEHICLE

    def _add_noise(self, image_HxWx3: np.ndarray, frame: int) -> None:
        height, width = self._size
        rng = np.random.default_rng([*self._seed, 1, frame])
        top, left = rng.integers(0, _NOISE_SHIFTS, 2)
        sheet = textures.noise_sheet(height + _NOISE_SHIFTS, width + _NOISE_SHIFTS)
        noise_HxWx3 = sheet[top : top + height, left : left + width] * self._street.light.noise
        cv2.add(image_HxWx3, noise_HxWx3, dst=image_HxWx3, dtype=cv2.CV_8U)


def _told_by(thing: Thing) -> float:
    """The size in metres that decides whether a thing can be told: height of people, else width."""
    if isinstance(thing, Person):
        return thing.height
    assert isinstance(thing, Car | Pole | Plant)
    return thing.width


def _nearest_level(sprite: textures.Sprite, shown_height: float) -> np.ndarray:
    """The smallest of a sprite's pictures that is at least as tall as it is shown."""
    for level_HxWx4 in reversed(sprite.levels_HxWx4):
        if level_HxWx4.shape[0] >= shown_height:
            return level_HxWx4
    return sprite.levels_HxWx4[0]


class SnippetFrames:
    """Renders the frames of a snippet; the annotated one is degraded if it is to be.

    Args:
        split: names the split, which the random numbers depend on.
        index: number of the snippet in its split.
        size: height and width in pixels.
        seed: of the data set.
        is_degraded: whether to degrade the annotated frame.
        night: whether it is dark.
    """

    def __init__(
        self,
        split: str,
        index: int,
        size: tuple[int, int],
        seed: int,
        is_degraded: bool,
        *,
        night: bool = False,
    ) -> None:
        key = (seed, zlib.crc32(split.encode()), index)
        self._fault_seed = (*key, 3)
        self._is_degraded = is_degraded
        street = draw_street(np.random.default_rng((*key, 2)))
        if night:
            street = dataclasses.replace(street, light=street.light.at_night())
        self._renderer = SnippetRenderer(street, size, key)

    def draw(self, frame: int) -> Frame:
        """The image and the exact labels of a frame."""
        picture = self._renderer.draw(frame)
        if not (self._is_degraded and frame == ANNOTATED_FRAME):
            return picture
        image = degrade(np.random.default_rng(self._fault_seed), picture.image_HxWx3)
        return Frame(image, picture.labels_HxW)
