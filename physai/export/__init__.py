"""Export: a policy as dependency-free C99 and as ONNX, with its contract, self-test and parity."""
