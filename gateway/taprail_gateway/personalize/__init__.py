"""Writes NTAG 424 DNA cards: a conversation that holds the keys, and a reader that only carries it.

The keys never leave this process: whoever carries the commands, be it on another machine, sees
ciphertext.
"""
