"""Recipes, runs, reports and the ``featbank`` command: where features meet regressors."""
