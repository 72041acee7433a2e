"""Requests answered under a budget."""
