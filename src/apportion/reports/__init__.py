"""Reports: one HTML file, one terminal table, one picture, each read from run folders and nothing else."""

from apportion.reports.picture import picture
from apportion.reports.report import write_report
from apportion.reports.terminal import terminal_table
from apportion.reports.verdict import verdict_on

__all__ = ["picture", "terminal_table", "verdict_on", "write_report"]
