"""Reports: one HTML file, one terminal table, one picture, each read from run folders and nothing else."""

from apportion.reports.notebook import Picture
from apportion.reports.picture import picture
from apportion.reports.report import write_report
from apportion.reports.terminal import terminal_table
from apportion.reports.verdict import verdict_on

__all__ = ["Picture", "picture", "terminal_table", "verdict_on", "write_report"]
