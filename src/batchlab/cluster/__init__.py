"""Sweeps on a Ray cluster: cells become tasks of its nodes, and a lost node costs a retry."""
