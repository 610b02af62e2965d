"""Verdicts and repairs of many models: the development population, and manifests of any others."""
