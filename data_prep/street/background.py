"""Casts the ground, the walls and the sky of a street, pixel by pixel."""

import dataclasses

import cv2
import numpy as np

from data_prep.street import textures
from data_prep.street.scene import STREET_LENGTH, Camera, Street

EGO_VEHICLE, ROAD, SIDEWALK, BUILDING, POLE = 1, 7, 8, 11, 17  # Cityscapes' label ids
TRAFFIC_SIGN, VEGETATION, SKY, PERSON, CAR = 20, 21, 23, 24, 26

_END_WALL_LENGTH = 140.0  # metres


@dataclasses.dataclass(frozen=True)
class Frame:
    """One rendered frame."""

    image_HxWx3: np.ndarray  # uint8, BGR
    labels_HxW: np.ndarray  # uint8, Cityscapes' label ids


class Background:
    """What does not move in a snippet.

    Args:
        street: what to draw.
        size: height and width of the frames in pixels.
        rng: draws the textures.
    """

    def __init__(self, street: Street, size: tuple[int, int], rng: np.random.Generator) -> None:
        self._street, self._size = street, size
        height, width = size
        light = street.light
        focal = street.drive.focal_per_width * width
        sky_size = (round(0.56 * height), round(1.2 * width))
        self._sky_HxWx3 = textures.sky(rng, *sky_size, light.haze, light.sun)
        green_share = rng.uniform(0.05, 0.35)
        left, right = (
            textures.wall(
                rng,
                STREET_LENGTH,
                focal / 16,
                street.foliage,
                brightness=1.0 if side == light.sunlit_side else 1 - 0.3 * light.sun,
                green_share=green_share,
            )
            for side in (-1, 1)
        )
        end = textures.wall(rng, _END_WALL_LENGTH, focal / 70, street.foliage, 0.9, 0.4)
        self._walls = (left, right, end)
        self._grain_NxN = textures.ground_tile(max(64, round(0.75 * width)))
        self._patches_MxM = textures.smooth_noise(rng, (128, 128), 32, 6)
        self._shadow_edge = rng.uniform(0.1, 0.8)

    def draw(self, camera: Camera) -> Frame:
        """Draws the empty street."""
        depth_W, wall_W = self._wall_depths(camera)
        image_HxWx3 = self._draw_sky(camera)
        labels_HxW = np.full(self._size, SKY, np.uint8)
        self._draw_walls(camera, depth_W, wall_W, image_HxWx3, labels_HxW)
        self._draw_ground(camera, depth_W, image_HxWx3, labels_HxW)
        return Frame(image_HxWx3, labels_HxW)

    def _slopes(self, camera: Camera) -> np.ndarray:
        """Metres to the right per metre of depth that each column looks, in street directions."""
        columns_W = np.arange(self._size[1], dtype=np.float32)
        return (columns_W - camera.centre) / camera.focal + camera.heading

    def _haze(self, depth: np.ndarray) -> np.ndarray:
        return 1 - np.exp(-depth / self._street.light.haze_distance)

    def _wall_depths(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Depth in metres at which each column meets a wall, and which one (left, right, end).

        A column looks along x = slope * z, and a wall `across` metres to the right runs along
        x = across + curvature / 2 * z**2.
        """
        slope_W = self._slopes(camera)
        depths_W = []
        for lateral in self._street.wall_laterals:
            across = lateral - camera.lateral
            square_W = slope_W**2 - 2 * camera.curvature * across
            root_W = np.sqrt(np.maximum(square_W, 0))
            divisor_W = np.sign(across) * slope_W + root_W
            meets_W = (square_W >= 0) & (divisor_W > 1e-4)
            depth_W = 2 * abs(across) / np.where(meets_W, divisor_W, 1)
            depths_W.append(np.where(meets_W, depth_W, np.inf))
        depths_W.append(np.full_like(slope_W, STREET_LENGTH - camera.along))
        depths_3xW = np.stack(depths_W)
        return depths_3xW.min(axis=0), depths_3xW.argmin(axis=0)

    def _draw_sky(self, camera: Camera) -> np.ndarray:
        """A new image with the sky above the horizon."""
        height, width = self._size
        turn = round(float(np.clip(camera.heading * camera.focal, -0.09 * width, 0.09 * width)))
        left = round(0.1 * width) + turn
        bottom = self._sky_HxWx3.shape[0]
        image_HxWx3 = np.empty((height, width, 3), np.uint8)
        image_HxWx3[:bottom] = self._sky_HxWx3[:, left : left + width]
        image_HxWx3[bottom:] = 0
        return image_HxWx3

    def _draw_walls(
        self,
        camera: Camera,
        depth_W: np.ndarray,
        wall_W: np.ndarray,
        image_HxWx3: np.ndarray,
        labels_HxW: np.ndarray,
    ) -> None:
        along_W = camera.along + depth_W
        slope_W = self._slopes(camera)
        lateral_W = camera.lateral + (slope_W - 0.5 * camera.curvature * depth_W) * depth_W
        for index, wall in enumerate(self._walls):
            level_count = len(wall.levels_HxWx4)
            near_depth = camera.focal / wall.pixels_per_metre
            level_W = np.log2(np.maximum(1.3 * depth_W / near_depth, 1)).astype(int)
            level_W = np.minimum(level_W, level_count - 1) if index < 2 else 0 * level_W
            for level in np.unique(level_W[wall_W == index]):
                columns_N = np.flatnonzero((wall_W == index) & (level_W == level))
                metres_N = (along_W if index < 2 else lateral_W + _END_WALL_LENGTH / 2)[columns_N]
                self._draw_columns(
                    camera, wall, level, columns_N, metres_N, depth_W, image_HxWx3, labels_HxW
                )

    def _draw_columns(
        self,
        camera: Camera,
        wall: textures.Wall,
        level: int,
        columns_N: np.ndarray,
        metres_N: np.ndarray,
        depth_W: np.ndarray,
        image_HxWx3: np.ndarray,
        labels_HxW: np.ndarray,
    ) -> None:
        """Draws the columns that show one level of one wall, `metres_N` from its start."""
        depth_N = depth_W[columns_N]
        lowest = camera.horizon + camera.focal * camera.height / float(depth_N.min())
        row_count = min(self._size[0], int(lowest) + 2)
        picture = wall.levels_HxWx4[level]
        rows_R = np.arange(row_count, dtype=np.float32)[:, None]
        above_RxN = (camera.horizon - rows_R) * (depth_N / camera.focal) + camera.height
        rows_per_metre = wall.pixels_per_metre / 2**level
        map_y_RxN = (textures.WALL_HEIGHT - above_RxN) * rows_per_metre - 0.5
        map_y_RxN = np.minimum(map_y_RxN, picture.shape[0] - 1).astype(np.float32)
        pixels_N = metres_N * wall.pixels_per_metre
        map_x_N = np.clip(pixels_N / 4**level - 0.5, 0, picture.shape[1] - 1).astype(np.float32)
        map_x_RxN = np.ascontiguousarray(np.broadcast_to(map_x_N, map_y_RxN.shape))
        cast_RxNx4 = cv2.remap(picture, map_x_RxN, map_y_RxN, cv2.INTER_LINEAR)
        alpha_RxNx1 = cast_RxNx4[..., 3:] * np.float32(1 / 255)
        haze_N = self._haze(depth_N).astype(np.float32)[:, None]
        front_RxNx3 = cast_RxNx4[..., :3] * (1 - haze_N)
        front_RxNx3 += alpha_RxNx1 * (haze_N * np.array(self._street.light.haze, np.float32))
        behind_RxNx3 = image_HxWx3[:row_count, columns_N]
        image_HxWx3[:row_count, columns_N] = front_RxNx3 + behind_RxNx3 * (1 - alpha_RxNx1)
        texel_N = np.clip(pixels_N.astype(int), 0, wall.is_green_W.size - 1)
        class_N = np.where(wall.is_green_W[texel_N], VEGETATION, BUILDING)
        labels_HxW[:row_count, columns_N] = np.where(alpha_RxNx1[..., 0] >= 0.5, class_N, SKY)

    def _draw_ground(
        self, camera: Camera, depth_W: np.ndarray, image_HxWx3: np.ndarray, labels_HxW: np.ndarray
    ) -> None:
        street, light = self._street, self._street.light
        top = max(int(camera.horizon + camera.focal * camera.height / STREET_LENGTH), 0)
        rows_R = np.arange(top, self._size[0], dtype=np.float32)[:, None]
        depth_R = camera.focal * camera.height / np.maximum(rows_R - camera.horizon, 0.5)
        across_metre_R = depth_R / camera.focal  # metres of the ground that a pixel spans
        along_metre_R = depth_R**2 / (camera.focal * camera.height)
        slope_W = self._slopes(camera)
        lateral_RxW = slope_W * depth_R + (camera.lateral - 0.5 * camera.curvature * depth_R**2)
        along_R = camera.along + depth_R
        off_centre_RxW = np.abs(lateral_RxW)

        road_RxW = np.clip((street.road_half_width - off_centre_RxW) / across_metre_R + 0.5, 0, 1)
        marks_RxW = self._marks(along_R, lateral_RxW, across_metre_R)
        joint_R = np.abs(along_R % 1.2 - 0.6)
        joints_RxW = np.maximum(
            _stripe(np.abs(off_centre_RxW % 0.8 - 0.4), 0.02, across_metre_R),
            _stripe(joint_R, 0.02, along_metre_R),
        )
        kerb_RxW = _stripe(
            np.abs(off_centre_RxW - street.road_half_width - 0.1), 0.12, across_metre_R
        )
        shade_RxW = self._grain(lateral_RxW, along_R, along_metre_R)
        shadow_RxW = self._wall_shadow(lateral_RxW, across_metre_R)
        shade_RxW *= 1 - 0.45 * light.sun * shadow_RxW

        walk_RxW = shade_RxW * (1 - 0.3 * joints_RxW + 0.16 * kerb_RxW)
        haze_R = self._haze(depth_R).astype(np.float32)
        cover_RxW = np.clip(
            rows_R - (camera.horizon + camera.focal * camera.height / depth_W) + 0.5, 0, 1
        )
        seen = image_HxWx3[top:]
        for channel in range(3):
            walk = street.paving[channel] * walk_RxW
            asphalt = street.asphalt[channel] * shade_RxW
            asphalt += (225 * shade_RxW - asphalt) * marks_RxW
            ground = walk + (asphalt - walk) * road_RxW
            ground += (light.haze[channel] - ground) * haze_R
            behind = seen[..., channel]
            seen[..., channel] = np.clip(behind + (ground - behind) * cover_RxW, 0, 255)
        ground_labels = np.where(road_RxW >= 0.5, ROAD, SIDEWALK)
        labels_HxW[top:] = np.where(cover_RxW >= 0.5, ground_labels, labels_HxW[top:])

    def _marks(
        self, along_R: np.ndarray, lateral_RxW: np.ndarray, across_metre_R: np.ndarray
    ) -> np.ndarray:
        """Share of white paint in each pixel: centre line, edge lines, zebra crossing."""
        street = self._street
        off_centre_RxW = np.abs(lateral_RxW)
        dash_R = (along_R % 5.0 < 2.6) if street.dashed else np.ones_like(along_R)
        marks_RxW = 0.85 * dash_R * _stripe(off_centre_RxW, 0.08, across_metre_R)
        edge_RxW = np.abs(off_centre_RxW - street.road_half_width + 0.25)
        marks_RxW = np.maximum(marks_RxW, 0.5 * _stripe(edge_RxW, 0.06, across_metre_R))
        zebra_R = np.abs(along_R - street.crossing) < 1.4
        bars_RxW = _stripe(np.abs(lateral_RxW % 1.0 - 0.5), 0.26, across_metre_R)
        inside_RxW = off_centre_RxW < street.road_half_width - 0.4
        return np.where(zebra_R & inside_RxW, 0.9 * bars_RxW, marks_RxW)

    def _grain(
        self, lateral_RxW: np.ndarray, along_R: np.ndarray, along_metre_R: np.ndarray
    ) -> np.ndarray:
        """The ground's brightness around 1: grain near the camera, patches everywhere."""
        lateral_RxW = lateral_RxW.astype(np.float32)
        along_RxW = np.broadcast_to(along_R.astype(np.float32), lateral_RxW.shape)
        size = self._grain_NxN.shape[0]
        scale = size / textures.GROUND_TILE
        grain_RxW = cv2.remap(
            self._grain_NxN,
            lateral_RxW * scale,
            along_RxW * scale,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
        sharpness_R = np.minimum(1, 3 / (along_metre_R * scale)).astype(np.float32)
        scale = self._patches_MxM.shape[0] / textures.GROUND_PATCHES
        patches_RxW = cv2.remap(
            self._patches_MxM,
            lateral_RxW * scale,
            along_RxW * (0.5 * scale),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        return 1 + (grain_RxW - 1) * sharpness_R + 0.07 * patches_RxW

    def _wall_shadow(self, lateral_RxW: np.ndarray, across_metre_R: np.ndarray) -> np.ndarray:
        """Share of each pixel in the shadow of the wall that stands before the sun."""
        light = self._street.light
        left, right = self._street.wall_laterals
        if light.sunlit_side > 0:
            edge = left + self._shadow_edge * (0.5 * (left + right) - left)
            return np.clip((edge - lateral_RxW) / across_metre_R + 0.5, 0, 1)
        edge = right + self._shadow_edge * (0.5 * (left + right) - right)
        return np.clip((lateral_RxW - edge) / across_metre_R + 0.5, 0, 1)


def _stripe(distance: np.ndarray, half_width: float, span: np.ndarray) -> np.ndarray:
    """Share of each pixel, `span` metres wide, that a stripe covers.

    Args:
        distance: metres from the pixel to the middle of the stripe.
        half_width: of the stripe in metres.
        span: metres of the ground that a pixel covers.
    """
    inside = np.clip((half_width - distance) / span + 0.5, 0, 1)
    return inside * np.minimum(1, 2 * half_width / span)
