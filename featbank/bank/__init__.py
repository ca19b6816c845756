"""Keeps features on disk: immutable shards keyed by image digest; knows neither images nor encoders."""

from featbank.bank.compaction import Compaction
from featbank.bank.export import export_features, write_features
from featbank.bank.folder import FeatureFolder, FolderSize
from featbank.bank.image_log import ImageLog
from featbank.bank.image_record import ImageRecord
from featbank.bank.imported import ImportedFeatures, read_feature_file
from featbank.bank.store import Bank, Pruning
from featbank.bank.verification import Problem

__all__ = [
    "Bank",
    "Compaction",
    "FeatureFolder",
    "FolderSize",
    "ImageLog",
    "ImageRecord",
    "ImportedFeatures",
    "Problem",
    "Pruning",
    "export_features",
    "read_feature_file",
    "write_features",
]
