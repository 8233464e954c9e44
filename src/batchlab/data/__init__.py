"""Batches for the user's own loop: in one order, growing, and used again."""

from batchlab.data.growing import GrowingBatchSampler, Last, Place
from batchlab.data.reusing import ReusingBatchSampler, ReusingLoader

__all__ = ["GrowingBatchSampler", "Last", "Place", "ReusingBatchSampler", "ReusingLoader"]
