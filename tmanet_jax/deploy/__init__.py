"""What happens around a trained network: benchmarks of every part."""
