"""Surrogates: ensembles that predict a plant's next state, with intervals and a domain."""
