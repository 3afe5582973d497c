"""`python -m tmanet_jax.weights SRC DST`: converts files of weights."""

import sys

from tmanet_jax.errors import tell_interrupts
from tmanet_jax.program import loading

if __name__ == "__main__":
    tell_interrupts()  # while it loads its libraries, for seconds
    with loading():
        from tmanet_jax.weights.conversion import main

    sys.exit(main())
