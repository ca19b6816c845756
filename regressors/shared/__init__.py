"""How many ridge, SVR and kernel-ridge fits share their Grams and kernels; `regressors.search` is the way in."""
