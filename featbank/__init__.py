"""From photographs to a table of frozen features.

The chain walks one way: images, views, encoders, bank, table. Importing this package loads
nothing heavy; import the part you need, for example ``from featbank.bank import Bank``.
"""

__version__ = "0.1.0"
