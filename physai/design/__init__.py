"""Design studies: search a design space on a surrogate, verify what was found in true MuJoCo."""
