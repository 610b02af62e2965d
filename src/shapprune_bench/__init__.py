"""Populations of models to measure the verdict on; uses shapprune, which never imports it."""
