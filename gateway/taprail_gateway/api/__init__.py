"""The HTTP edge: parses, authenticates and answers; decides nothing."""
