"""Environments over any `Model`, the true plant or a surrogate: single, vector and functional."""
