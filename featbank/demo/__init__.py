"""Renders the built-in photo set: simulated scenes, a simulated camera, simulated raters.

The set has the layout and tables of the UHD-IQA release, so that the whole chain runs without any download.
Everything computed on it is the result of a simulation and proves nothing about real photos.
"""

from featbank.demo.write import STATEMENT, write_demo

__all__ = ["STATEMENT", "write_demo"]
