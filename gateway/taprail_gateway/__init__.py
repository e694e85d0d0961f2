"""The edge gateway: authorizes taps, settles them on an EVM chain, tells the result."""
