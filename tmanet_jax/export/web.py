"""A folder that segments videos in a browser: a page, a runtime, and a network as ONNX."""

import shutil
from pathlib import Path

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.files import folder_in_place
from tmanet_jax.export.folder import check_installed, export_network
from tmanet_jax.export.verify import Agreement
from tmanet_jax.export.web_runtime import PACKAGE, runtime_files
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol

_PAGE = Path(__file__).parent / "page"

_README = """\
# {network} in the browser

```bash
python serve.py
```

and open the address that it prints. Any other server of static files will do: without the headers
that `serve.py` sends (`Cross-Origin-Opener-Policy: same-origin`, `Cross-Origin-Embedder-Policy:
require-corp`) the network has one thread of the CPU. Once loaded, the page asks no server for
anything. Browsers give the camera to pages from https or localhost alone.

The newest frame is segmented whenever the network is free, on WebGPU where there is a GPU, else on
the CPU (`?engine=wasm` and `?engine=webgpu` choose). Frames are resized to {height}x{width} pixels,
their ratio kept; the rest is filled with the mean colour, as the padding was in training. What is
remembered is forgotten at a jump in the video.

`network.js` runs the network without the page. `network/` is the export for ONNX Runtime, which
runs in Python, too. `runtime/` holds files of {package} (MIT licence, `runtime/LICENSE`).

Verified by ONNX Runtime in Python after writing: {agreement}.
"""


def export_page(
    model: TMANet,
    classes: ClassSet,
    protocol: Protocol,
    output: Path,
    *,
    size: tuple[int, int],
    runtime: str = "",
) -> Agreement:
    """Writes the folder, which needs a server of static files and nothing else.

    Args:
        model: in float32.
        classes: what it tells apart.
        protocol: how frames are segmented.
        output: a folder that is made; nothing is left of an export that fails.
        size: height and width of the frames that go into the network.
        runtime: the folder or tarball of the npm package onnxruntime-web; empty: npm fetches it.

    Raises:
        UserError: the runtime is not to be had, or as of `export_network` with format onnx.
    """
    check_installed("onnx")
    with folder_in_place(output) as folder:
        files = runtime_files(runtime)
        shutil.copytree(
            _PAGE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        for name, content in files.items():
            (folder / "runtime" / name).write_bytes(content)
        agreement = export_network(
            model, classes, protocol, folder / "network", format="onnx", size=size
        )
        height, width = size
        told = _README.format(
            network=model.config.head.network,
            height=height,
            width=width,
            package=PACKAGE,
            agreement=agreement,
        )
        (folder / "README.md").write_text(told)
    return agreement
