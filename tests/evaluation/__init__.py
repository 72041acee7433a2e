"""Benchmarks: the harness, its metering, and the place where generated code is run."""
