"""Reports: one HTML file, one terminal table, one picture, each read from run folders and nothing else."""

from apportion.reports.notebook import Picture
from apportion.reports.picture import picture
from apportion.reports.report import verdict_on, write_report
from apportion.reports.rl.terminal import reinforce_table
from apportion.reports.terminal import terminal_table

__all__ = ["Picture", "picture", "reinforce_table", "terminal_table", "verdict_on", "write_report"]
