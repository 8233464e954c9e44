"""``python -m batchlab`` is the command ``batchlab``."""

from batchlab import cli

if __name__ == "__main__":
    raise SystemExit(cli.main())
