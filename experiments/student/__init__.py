"""Makes the student that the package ships, from photographs and distortions: ``python -m experiments.student``."""
