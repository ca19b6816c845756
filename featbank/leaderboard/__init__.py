"""The challenge's published tables as data, its ranking rule as code, and the place that runs take in them."""
