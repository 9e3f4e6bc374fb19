"""Recipes and catalog read from files, extended and overridden; and the version of this code."""
