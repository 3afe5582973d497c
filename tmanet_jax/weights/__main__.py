"""`python -m tmanet_jax.weights SRC DST`: converts files of weights."""

import sys

from tmanet_jax.weights.conversion import main

if __name__ == "__main__":
    sys.exit(main())
