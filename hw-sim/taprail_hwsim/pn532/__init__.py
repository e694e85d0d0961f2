"""A PN532 NFC reader on a pseudo-terminal: real drivers talk to it, nothing is shared with them."""

from taprail_hwsim.pn532.pty_port import Pn532Simulator

__all__ = ["Pn532Simulator"]
