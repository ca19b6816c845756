"""Search over band subsets and a recipe's open choices, under a budget, shared by processes and hosts.

``space`` says what there is to choose, ``evaluation`` what a choice earns, ``proposals`` what to try next,
``ledger`` who does it and what came out, ``worker`` joins the three, ``outcome`` reads the finished study,
``document`` writes it down, ``out_folder`` guards the folder, and ``run`` turns all of it into a run folder.
"""
