"""The parts of a run: splits, model, scores, receipt, trust checks, and the folder that holds them."""
