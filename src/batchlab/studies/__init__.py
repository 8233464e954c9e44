"""Sources as lists of claims, each measured: reproduced, not reproduced, or inconclusive."""
