"""`taprail-sim chaos`: the whole stack under load and a seeded schedule of faults, judged by the
chain's own transfers.

`schedule` draws what happens (pure), `troubles` are the faults, `site` is the running stack and the
hands on it, `crowd` pays, `judge` holds what was promised against what the chain did (pure), and
`run` brings them together.
"""
