"""Reports: one HTML file, one terminal table, one picture, each read from run folders and nothing else."""

from apportion.reports.report import write_report

__all__ = ["write_report"]
