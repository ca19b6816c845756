"""How far a score holds: repeated splits, another dataset, fewer rated photos."""
