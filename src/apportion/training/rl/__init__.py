"""Reinforcement under a budget: roll-outs that are cut at every budget, their advantages, and TRL's trainer on them."""
