"""The families of the test population."""
