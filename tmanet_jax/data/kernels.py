"""The loops over pixels that no library offers, compiled by numba and free of Python's lock.

The first call of each in a process compiles it, or loads what an earlier process compiled.
Arrays are contiguous, so that each is compiled once; unsigned indices spare numba the test for
negative ones.
"""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def undo_differences(
    tile_hxw: np.ndarray,
    first_row: int,
    first_column: int,
    out_hxw: np.ndarray,
    top: int,
    left: int,
    height: int,
    width: int,
) -> None:
    """Sums the rows of a tile from its top, modulo 256, and keeps a part of the sums.

    Args:
        tile_hxw: uint8, each row the difference to the one above.
        first_row: the first row that is kept.
        first_column: the first column that is kept.
        out_hxw: uint8, where the part goes.
        top: its first row there.
        left: its first column there.
        height: number of rows that are kept.
        width: number of columns that are kept.
    """
    sums_w = tile_hxw[0, first_column : first_column + width].copy()
    for row in range(1, first_row + 1):
        differences_w = tile_hxw[row, first_column : first_column + width]
        for x in range(width):
            sums_w[x] = np.uint8(sums_w[x] + differences_w[x])
    out_hxw[top, left : left + width] = sums_w
    for row in range(1, height):
        differences_w = tile_hxw[first_row + row, first_column : first_column + width]
        above_w = out_hxw[top + row - 1, left : left + width]
        out_w = out_hxw[top + row, left : left + width]
        for x in range(width):
            out_w[x] = np.uint8(above_w[x] + differences_w[x])


@numba.njit(nogil=True, cache=True)
def resize(
    window_hxw3: np.ndarray,
    rows_2xH: np.ndarray,
    row_weights_2xH: np.ndarray,
    columns_2xW: np.ndarray,
    column_weights_2xW: np.ndarray,
    out_HxW3: np.ndarray,
) -> None:
    """Weighted means of 2x2 RGB pixels, in the integers of OpenCV's INTER_LINEAR for uint8.

    Source: OpenCV, modules/imgproc/src/resize.cpp, HResizeLinear and VResizeLinear.

    Args:
        window_hxw3: uint8.
        rows_2xH: uint64, the upper and the lower row that each output row is made of: the same or
            neighbours.
        row_weights_2xH: int32, their weights, of `augment.COEFFICIENT_ONE`.
        columns_2xW: uint64, where in a row the left and the right pixel begin that each output
            column is made of.
        column_weights_2xW: int32, their weights.
        out_HxW3: uint8; what is beyond the last row or column stays.
    """
    num_rows, num_columns = rows_2xH.shape[1], columns_2xW.shape[1]
    one, two, four, sixteen = np.uint64(1), np.int32(2), np.int32(4), np.int32(16)
    kept_2 = np.full(2, -1, np.int64)  # which rows `means` holds, resized along x
    means_2xW3 = np.empty((2, 3 * num_columns), np.int32)
    for y in range(num_rows):
        for neighbour in range(2):
            row = rows_2xH[neighbour, y]
            place = row & one  # neighbours have different places
            if kept_2[place] == row:
                continue
            kept_2[place] = row
            window_w3, means_W3 = window_hxw3[row], means_2xW3[place]
            for x in range(num_columns):
                left, right = columns_2xW[0, x], columns_2xW[1, x]
                left_weight, right_weight = column_weights_2xW[0, x], column_weights_2xW[1, x]
                mean = np.uint64(3 * x)
                for _ in range(3):
                    means_W3[mean] = (
                        np.int32(window_w3[left]) * left_weight
                        + np.int32(window_w3[right]) * right_weight
                    ) >> four
                    left, right, mean = left + one, right + one, mean + one
        upper_W3, lower_W3 = means_2xW3[rows_2xH[0, y] & one], means_2xW3[rows_2xH[1, y] & one]
        upper_weight, lower_weight = row_weights_2xH[0, y], row_weights_2xH[1, y]
        out_W3 = out_HxW3[y]
        for x in range(3 * num_columns):
            upper = np.int32(upper_weight * upper_W3[x]) >> sixteen
            lower = np.int32(lower_weight * lower_W3[x]) >> sixteen
            out_W3[x] = np.uint8((upper + lower + two) >> two)


@numba.njit(nogil=True, cache=True)
def look_up_channel(picture_HxWxC: np.ndarray, channel: int, table_256: np.ndarray) -> None:
    """Replaces one channel of a uint8 picture by a table's values."""
    height, width = picture_HxWxC.shape[:2]
    for y in range(height):
        for x in range(width):
            picture_HxWxC[y, x, channel] = table_256[picture_HxWxC[y, x, channel]]
