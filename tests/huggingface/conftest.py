"""Without transformers, which is an extra, there is nothing to test here."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("transformers") else ["test_*.py"]
