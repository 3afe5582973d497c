"""The network: jax and flax alone, knowing neither the data nor the configuration files."""
