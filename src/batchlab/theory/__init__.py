"""Predictions in closed form or by small solvers; nothing here is trained."""

from batchlab.theory.directions import Exponents, exponents
from batchlab.theory.mean_field import Dynamics, dmft

__all__ = ["Dynamics", "Exponents", "dmft", "exponents"]
