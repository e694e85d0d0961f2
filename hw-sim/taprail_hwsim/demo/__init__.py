"""`make demo`: a story of taps on the whole stack, with a live timeline and a proof at its end."""
