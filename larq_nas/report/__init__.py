"""Plots of what a run did, where matplotlib is installed."""

from larq_nas.report.widths import plot_widths

__all__ = ["plot_widths"]
