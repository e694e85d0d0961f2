"""Writes NTAG 424 DNA cards: a conversation that holds the keys, and a reader that only carries it.

Keys leave this process only under the keys that a card has already. Those of a card fresh from its
box are zeros, which everybody knows: whoever listens while it is written, on the line or on the
air, can work out what it is given. So fresh cards are written in a place that is trusted, and a
reader elsewhere is reached through ssh. What is under the issuer's own keys is safe from then on.
"""
