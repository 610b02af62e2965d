"""The command ``shapprune``."""
