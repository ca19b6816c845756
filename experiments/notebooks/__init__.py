"""The notebooks, and the command that executes them from a clean kernel and keeps their outputs."""
