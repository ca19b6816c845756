"""Scores on BIQ2021, a set of 12,000 photographs with the opinions of 30 raters each."""
