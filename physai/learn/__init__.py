"""Learning a policy inside a surrogate, with the true simulator as the judge of it."""
