"""Measurements behind every figure that the documentation quotes; none is part of the test run."""
