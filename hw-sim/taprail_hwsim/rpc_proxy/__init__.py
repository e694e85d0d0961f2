"""A JSON-RPC proxy that stands before a node and injects faults, by a seed and by name.

`decide` says which fault meets which call (pure), the faults say what happens to it (`wire_faults`
to the request as a whole, `answer_faults` to what is answered, `pool_faults` to transactions),
`table` gives them names, and `server` is the thin HTTP edge.
"""

from taprail_hwsim.rpc_proxy.decide import Amount, Rule
from taprail_hwsim.rpc_proxy.exchange import Call, Exchange, Fault
from taprail_hwsim.rpc_proxy.server import Injection, RpcProxy
from taprail_hwsim.rpc_proxy.table import FAULTS, FaultSpecError, parse_rule

__all__ = [
    "FAULTS",
    "Amount",
    "Call",
    "Exchange",
    "Fault",
    "FaultSpecError",
    "Injection",
    "RpcProxy",
    "Rule",
    "parse_rule",
]
