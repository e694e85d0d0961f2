"""`make bench`: measures TapRail on this machine, its peers beside it, against its goals."""
