"""Benchmarks of a finished or half-finished model, through lm-evaluation-harness; extra ``evaluate``."""
