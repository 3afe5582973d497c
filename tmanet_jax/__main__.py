"""The command `tmanet`: all that run.py, data_prep and the converter of weights do."""

import importlib
import sys

from tmanet_jax.errors import UserError, ends_with_message, tell_interrupts
from tmanet_jax.program import FOLDER, loading

PREPARATIONS = ("cityscapes", "camvid", "vspw", "kitti_step", "folder", "synthetic", "browse")
_PREPARE = f"tmanet prepare {'|'.join(PREPARATIONS)} --help"
_BESIDES = f"""
besides (tmanet WORD --help):
  prepare      writes clip records, or shows them: {", ".join(PREPARATIONS)}
  weights      converts files of weights"""


@ends_with_message
def main() -> int:
    """Runs the command line; returns the exit status.

    Processes that this one starts find run.py and its folders, too: they get `sys.path`.

    Raises:
        UserError: what to prepare is not said.
    """
    tell_interrupts()  # while libraries are loaded, for seconds
    sys.path.insert(0, str(FOLDER))
    match sys.argv[1:]:
        case ["prepare", name, *words] if name in PREPARATIONS:
            return importlib.import_module(f"data_prep.{name}").main(words)
        case ["prepare", "--help" | "-h"]:
            print(_PREPARE)
            return 0
        case ["prepare", *_]:
            raise UserError(f"Prepare what? {_PREPARE}")
        case ["weights", *words]:
            with loading():
                from tmanet_jax.weights import conversion

            return conversion.main(words)
    import run

    status = run.main(sys.argv)
    if {"--help", "-h"} & set(sys.argv):
        print(_BESIDES)
    return status


if __name__ == "__main__":
    sys.exit(main())
