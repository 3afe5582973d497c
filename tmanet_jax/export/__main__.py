"""`python -m tmanet_jax.export --checkpoint=... --output=DIR`: networks for other engines."""

import sys

from tmanet_jax.errors import tell_interrupts

if __name__ == "__main__":
    tell_interrupts()  # while it loads its libraries, for seconds
    from tmanet_jax.export.command import main

    sys.exit(main())
