"""The PN532's contactless interface registers, as far as reader software looks at them.

Addresses and bits are those of the PN532/C1 data sheet clause 8.6.23 (CIU registers). Other
addresses keep what was written to them and start at zero.
"""

from __future__ import annotations

from typing import Final

from taprail_hwsim.pn532.rf_field import RfField

TX_MODE: Final = 0x6302
RX_MODE: Final = 0x6303
TX_CONTROL: Final = 0x6304
FIFO_DATA: Final = 0x6339
FIFO_LEVEL: Final = 0x633A
CRC_ENABLE: Final = 0x80  # TxCRCEn and RxCRCEn
ANTENNA_DRIVERS: Final = 0x03  # Tx1RFEn and Tx2RFEn
TX_CONTROL_IDLE: Final = 0x80  # reset value
REQA: Final = 0x26  # ISO/IEC 14443-3 clause 6.4.1


class Registers:
    """Register file; the antenna driver bits always tell the state of the field."""

    def __init__(self, field: RfField) -> None:
        self._field = field
        self.reset()

    def reset(self) -> None:
        self._values: dict[int, int] = {TX_CONTROL: TX_CONTROL_IDLE}
        self._fifo = b""

    @property
    def tx_crc(self) -> bool:
        return bool(self._values.get(TX_MODE, 0) & CRC_ENABLE)

    @property
    def rx_crc(self) -> bool:
        return bool(self._values.get(RX_MODE, 0) & CRC_ENABLE)

    def type_a_framing(self) -> None:
        """What the firmware leaves behind a selected type A card: 106 kbit/s, CRC both ways."""
        self._values[TX_MODE] = self._values[RX_MODE] = CRC_ENABLE
        self._fifo = b""

    def no_answer_to_reqa(self) -> None:
        """An unanswered REQA stays in the FIFO; drivers take it for "nothing there"."""
        self._fifo = bytes([REQA])

    def read(self, address: int) -> int:
        if address == FIFO_DATA:
            first, self._fifo = self._fifo[:1], self._fifo[1:]
            return first[0] if first else 0
        if address == FIFO_LEVEL:
            return len(self._fifo)
        value = self._values.get(address, 0)
        if address == TX_CONTROL:
            value = value & ~ANTENNA_DRIVERS | (ANTENNA_DRIVERS if self._field.on else 0)
        return value

    def write(self, address: int, value: int) -> None:
        self._values[address] = value
