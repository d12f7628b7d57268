"""Time integration: exponentials of the generator to round-off, symmetric splitting, control of the time error."""
