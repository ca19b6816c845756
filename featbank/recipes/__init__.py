"""Recipes: the TOML files that ship, and how a recipe is read and checked."""
