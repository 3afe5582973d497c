"""What can be asked for by name: formats of exports, engines that compute, and their precisions."""

from collections.abc import Mapping
from typing import Literal, get_args

Format = Literal["stablehlo", "onnx", "openvino"]
AnySize = Literal["any"]
"""In place of height and width: multiples of 8 that stay open."""

WRITTEN = (*get_args(Format), "web")
"""By the mode `export`: the formats, and a page for browsers."""

Engine = Literal["jax", "onnxruntime", "openvino"]
Precision = Literal["float32", "bfloat16", "int8"]

FORMATS: Mapping[Engine, Format] = {"onnxruntime": "onnx", "openvino": "openvino"}
PRECISIONS: Mapping[Engine, tuple[Precision, ...]] = {
    "jax": ("float32", "bfloat16"),
    "onnxruntime": ("float32",),
    "openvino": ("float32", "bfloat16", "int8"),
}
