"""Runs of reinforcement: what they answered before and after at each thinking budget, and what that took."""

from apportion.reports.rl.arms import RlView, arrange
from apportion.reports.rl.page import body, title
from apportion.reports.rl.verdict import verdict

__all__ = ["RlView", "arrange", "body", "title", "verdict"]
