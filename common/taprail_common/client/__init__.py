"""The gateway's client: what terminals, commands and the simulator speak to it with.

`exchange` carries bytes, `errors` says what an answer that is no success means, and `gateway` has a
method for each thing that may be asked. It needs aiohttp, which `[terminal]` and `[gateway]` bring.
"""
