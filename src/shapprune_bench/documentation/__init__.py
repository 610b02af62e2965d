"""Writes what the documentation says of results and shows of the demo."""
