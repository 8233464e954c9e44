"""The recommendation as lines of the user's own script: found by Python's syntax, never guessed.

``kinds`` says where each framework writes a setting, ``division`` how a batch is cut, ``snippets``
what to write by hand, ``script`` and ``values`` find what a script says today, ``patch`` puts
it together.
"""

from batchlab.patching.patch import Patch, make

__all__ = ["Patch", "make"]
