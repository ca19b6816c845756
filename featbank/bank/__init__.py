"""Keeps features on disk: immutable shards keyed by image digest; knows neither images nor encoders."""

from featbank.bank.bank import Bank
from featbank.bank.export import write_features
from featbank.bank.folder import FeatureFolder
from featbank.bank.image_log import ImageLog, ImageRecord
from featbank.bank.upkeep import Problem

__all__ = [
    "Bank",
    "FeatureFolder",
    "ImageLog",
    "ImageRecord",
    "Problem",
    "write_features",
]
