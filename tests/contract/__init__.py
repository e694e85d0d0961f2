"""The HTTP contract, as its own document has it."""
