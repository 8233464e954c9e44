"""Predictions in closed form or by small solvers; nothing here is trained."""
