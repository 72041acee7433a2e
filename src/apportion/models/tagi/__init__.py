"""Hypernetworks: models that read a task's instruction and write the adapter for it."""
