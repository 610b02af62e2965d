"""Labelled images of the user, from folders, arrays and known sets."""
