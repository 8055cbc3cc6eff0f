"""The true simulator at scale: engine, excitation, symmetry tests and the episode store."""
