"""What happens after a payment was settled: rows of the outbox, handed to named handlers."""
