"""Measures speed as ratios, side by side in one run: against a plain loop and against the machine's own limit."""
