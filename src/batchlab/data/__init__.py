"""Batches for the user's own loop: in one order, growing, used again, and from disk."""

from batchlab.data.growing import GrowingBatchSampler, Last, Place
from batchlab.data.mapped import MappedArrays
from batchlab.data.reusing import ReusingBatchSampler, ReusingLoader
from batchlab.data.shards import Shards
from batchlab.data.writing import write_shards

__all__ = [
    "GrowingBatchSampler",
    "Last",
    "MappedArrays",
    "Place",
    "ReusingBatchSampler",
    "ReusingLoader",
    "Shards",
    "write_shards",
]
