"""Turns the pixels of an image into the crops an encoder sees; declarative, deterministic, seeded.

A view is written as text (`parse_view`), knows the shapes of its crops without pixels (`View.geometry`), and
everything that can change its pixels is in `View.identity`. Views take arrays, never files, and know nothing
of encoders: the mean and deviation of a checkpoint belong to the encoder.
"""

from featbank.views.spec import VIEW_GRAMMAR, SharedBeginnings, View, ViewExample, list_views, parse_view

__all__ = ["VIEW_GRAMMAR", "SharedBeginnings", "View", "ViewExample", "list_views", "parse_view"]
