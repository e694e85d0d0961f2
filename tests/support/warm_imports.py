"""What the programs that tests start will import, brought in once: see `warm`.

Nothing here may start a thread: who is forked has none of them.
"""

import gc
import importlib

for _name in (
    "coincurve",
    "psycopg",
    "pytest",
    "taprail_common.cli",
    "taprail_gateway.admin",
    "taprail_gateway.app",
    "taprail_gateway.cli",
    "taprail_hwsim.cli",
    "taprail_hwsim.demo",
    "taprail_hwsim.panel.link",
    "taprail_hwsim.up",
    "taprail_terminal.app",
    "taprail_terminal.cli",
    "taprail_terminal.console",
    "taprail_terminal.diag",
    "taprail_terminal.feedback.gpio",
    "taprail_terminal.readers.pn532",
    "tests.support.crash_day",
):
    importlib.import_module(_name)

gc.freeze()  # what is shared stays shared: a collection would write into all of it
