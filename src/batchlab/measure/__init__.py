"""Measurements on the user's own model, data and machine.

``fit`` (what fits in memory), ``throughput`` (seconds per update), ``plain`` (the training loop
that both run and ``apply.py`` contains), ``noise`` (gradient noise scale), ``doctor`` (this
machine). Every measurement leaves no trace: weights, random state and data order are what they
were.
"""
