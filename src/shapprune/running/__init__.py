"""Runs tasks, each once: in processes of this machine or on a Ray cluster."""
