"""Measurements: each script runs by itself and has a quick mode that the tests use."""
