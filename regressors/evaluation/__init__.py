"""How good predictions are, how sure that is, and what could have made them look better than they are."""
