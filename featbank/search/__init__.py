"""Search under a budget: which bands, and which of the recipe's open choices, rank best on held-out training rows.

``space`` says what there is to choose, ``evaluation`` what a choice earns, ``study`` is the loop that evaluates,
``outcome`` reads the finished study, ``figures`` draws it, ``run`` fits the winner.
"""
