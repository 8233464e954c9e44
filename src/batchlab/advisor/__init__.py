"""The advice: candidates, three priced stages, a decision, and the record the report reads."""
