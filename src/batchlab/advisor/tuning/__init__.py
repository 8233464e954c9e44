"""The search over all settings at once: a space, proposals, successive halving."""
