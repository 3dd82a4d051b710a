"""Every method on the same images, by one metric: ``python -m benchmarks run``."""
