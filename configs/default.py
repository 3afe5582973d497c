"""Every field of a run with its default: the published Cityscapes run, without its data set.

    python run.py config --config=configs/default.py

prints them with their meaning, unit, range and source. Each is declared once, beside the code that
uses it (`tmanet_jax/settings.py` puts them together). The other files here hold what differs, and
any field can be set on the command line: `--config.optimizer.learning_rate=0.02`.
"""

from ml_collections import ConfigDict

from tmanet_jax.settings import Settings, to_config


def get_config() -> ConfigDict:
    """The defaults."""
    return to_config(Settings())
