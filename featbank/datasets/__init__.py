"""Reads published and own datasets into one image table, and looks them over; decodes nothing but to check.

The readers take care of what differs between datasets: where the images lie, which column is the score and on
which scale, who may tell training from test, and which images belong together. Nothing after them has to know.
"""

from featbank.datasets.check import check_dataset, render_check
from featbank.datasets.image_table import SPLITS, SUBSETS, ImageTable
from featbank.datasets.locate import is_list, read_list, read_photos
from featbank.datasets.registry import list_datasets, read_dataset, read_mos, read_own_table, read_plain_csv
from featbank.datasets.release import DatasetInfo, Release
from featbank.datasets.splits import GivenSplit, read_splits

__all__ = [
    "SPLITS",
    "SUBSETS",
    "DatasetInfo",
    "GivenSplit",
    "ImageTable",
    "Release",
    "check_dataset",
    "is_list",
    "list_datasets",
    "read_dataset",
    "read_list",
    "read_mos",
    "read_own_table",
    "read_photos",
    "read_plain_csv",
    "read_splits",
    "render_check",
]
