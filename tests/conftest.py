"""Fixtures shared by all tests, and what happens where a system part is missing."""

pytest_plugins = ["tests.support.chain_fixtures", "tests.support.ledger_fixtures"]
