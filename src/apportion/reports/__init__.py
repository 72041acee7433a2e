"""Reports: one HTML file, one terminal table, one picture, each read from run folders and nothing else."""

from apportion.reports.picture import picture
from apportion.reports.report import write_report
from apportion.reports.terminal import terminal_table

__all__ = ["picture", "terminal_table", "write_report"]
