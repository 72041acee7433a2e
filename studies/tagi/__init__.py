"""Adapters from instructions: programs that compose, and real tasks held out whole."""
