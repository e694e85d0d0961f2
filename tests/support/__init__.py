"""What several test modules share: fixtures, played peers, builders."""
