"""Measurements on the user's own model, data and machine.

``fit`` (what fits in memory), ``throughput`` (seconds per update), ``plain`` (the training loop
that both run and ``apply.py`` contains), ``noise`` (gradient noise scale), ``critical`` (critical
batch size by branching), ``sharpness`` (largest eigenvalues and trace of the Hessian),
``sparsity`` (on how many weights and units a model rests), ``alignment`` (how far training moved
it), ``features`` (how many units its decisions need, and what these look at), ``overlaps`` (how
far rows point along given directions, as a probe), ``coordinates`` (how far each layer moves,
against the width), ``disturbance`` and ``robustness`` (the metric
under noise, drift, wrong labels …), ``repeatability`` (on how many examples two seeds disagree),
``sturdiness`` (all of these for several settings), ``doctor`` (this machine). Every
measurement leaves no trace: weights, random state and data order are what they were.
"""
