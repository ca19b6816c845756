"""From a table of features to quality scores: regressors, ensembles, metrics.

This package knows nothing of images, files of features or deep-learning libraries. Its input is a
pandas frame with string columns ``band:0000`` and a vector of mean opinion scores.
"""
