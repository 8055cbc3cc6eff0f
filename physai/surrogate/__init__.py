"""Surrogates: an ensemble that predicts a plant's next state, with intervals and an operating domain."""
