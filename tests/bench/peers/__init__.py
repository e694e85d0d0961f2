"""What one would settle with instead, on the same node, token and transfers."""
