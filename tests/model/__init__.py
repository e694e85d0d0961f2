"""Settlement against a model of a chain: a state machine that tries every order of events."""
