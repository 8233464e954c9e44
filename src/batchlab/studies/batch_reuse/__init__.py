"""What re-using batches lets a two-layer network learn (dandi2024, arnaboldi2024)."""
