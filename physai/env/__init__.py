"""Environments over any `Model`: the true plant or a surrogate, through one Gymnasium class."""
