"""Data in and out: logs of a real machine as datasets, and datasets as what other tools read."""
