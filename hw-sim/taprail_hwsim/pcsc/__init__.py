"""A contactless PC/SC reader without hardware: the real pcscd, and a card that speaks to its vpcd
driver. Nothing is shared with what is tested."""

from taprail_hwsim.pcsc.daemon import Pcscd, PcscMissingError
from taprail_hwsim.pcsc.simulator import READER_NAME, PcscSimulator

__all__ = ["READER_NAME", "PcscMissingError", "PcscSimulator", "Pcscd"]
