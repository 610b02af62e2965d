"""Measures shapprune: the paper's tables, populations of models, studies of one question each.

It uses shapprune, which never imports it; ``shapprune bench`` finds `shapprune_bench.command`.
"""
