"""The terminal agent: reads cards, asks the gateway, tells the customer."""
