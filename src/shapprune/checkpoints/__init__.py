"""Strangers' files in, ours out: looked into, read, named, built and written."""
