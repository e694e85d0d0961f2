"""Fixtures shared by all tests, and what happens where a system part is missing."""

pytest_plugins = ["tests.chain_fixtures", "tests.ledger_fixtures"]
