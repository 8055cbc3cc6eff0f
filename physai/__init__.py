"""From a MuJoCo model to a verified controller: data, surrogate, policy, certificate, bundle."""

__version__ = "0.1.0"
