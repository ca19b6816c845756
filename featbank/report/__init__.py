"""Turns a run folder into a page people can read, figures, and tables; computes no new result.

Every number shown is read from the run folder, so a page can be made again at any time, without the features
and without the photos.
"""

from featbank.report.page import write_report

__all__ = ["write_report"]
