"""Settlement: the loops that send payments to the chain and confirm them there."""
