"""A PN532 (firmware 1.6) as its host sees it: the command machine of UM0701-02 rev. 02, sans I/O.

Bytes go in with the time and the host's line speed; bytes come out when they are due. Answers for
the commands a reader needs to poll and talk to type A cards at 106 kbit/s; any other command gets
the syntax error frame. Every constant is from the user manual, none from a driver.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from taprail_hwsim.cards.base import CardAnswer
from taprail_hwsim.pn532 import frames
from taprail_hwsim.pn532.crc_a import CRC_BYTES, crc_a
from taprail_hwsim.pn532.registers import Registers
from taprail_hwsim.pn532.rf_field import RfField
from taprail_hwsim.pn532.uart import BAUD_RATES, HostUart

# GetFirmwareVersion, clause 7.2.2: IC 32h, version 1.6, supports type A, type B and ISO 18092.
FIRMWARE: Final = bytes([0x32, 0x01, 0x06, 0x07])
DIAGNOSE_LINE, DIAGNOSE_ROM, DIAGNOSE_RAM = 0x00, 0x01, 0x02  # clause 7.2.1

# Status bytes, clause 7.1, table of error codes.
STATUS_OK: Final = 0x00
STATUS_TIMEOUT: Final = 0x01
STATUS_CRC: Final = 0x02

# RFConfiguration items, clause 7.3.1, with the number of configuration bytes each takes.
ITEM_FIELD, ITEM_TIMINGS, ITEM_RETRIES = 0x01, 0x02, 0x05
ITEM_BYTES: Final = {0x01: 1, 0x02: 3, 0x04: 1, 0x05: 3, 0x0A: 11, 0x0B: 8, 0x0C: 3, 0x0D: 9}
FIELD_ON_BIT: Final = 0x01
# Item 02h: index n means 100 us * 2^(n-1), 0 means no limit; fRetryTimeout starts at 0Ah, 51.2 ms.
TIMEOUT_STEP_S: Final = 100e-6
TIMEOUT_INDEX_MAX: Final = 0x10
RETRY_TIMEOUT_DEFAULT: Final = 0x0A
# Item 05h: MxRtyPassiveActivation; FFh, the default, retries until the host gives up.
RETRIES_ENDLESS: Final = 0xFF
# ISO/IEC 14443-3 clause 5: a card may take 5 ms from field on until it answers.
ENDLESS_POLL_S: Final = 5e-3

# SetParameters, clause 7.2.9: default flags fAutomaticATR_RES and fAutomaticRATS.
PARAMETERS_DEFAULT: Final = 0x14
AUTOMATIC_RATS: Final = 0x10
WAKE_BY_HSU: Final = 0x10  # PowerDown, clause 7.2.11, bit 4 of WakeUpEnable

TYPE_A_106: Final = 0x00  # InListPassiveTarget, clause 7.3.5, BrTy
BRTY_MAX: Final = 0x04
TARGETS_MAX: Final = 2
CASCADE_TAG: Final = 0x88
ISO_DEP_SAK: Final = 0x20  # ISO/IEC 14443-3 table 9
# FSDI 5, 64 bytes: what the firmware asks for by itself (clause 7.3.5, automatic RATS).
FIRMWARE_RATS: Final = b"\xe0\x50"


class CommandSyntaxError(Exception):
    """The command does not exist or its parameters are out of range."""


@dataclass(frozen=True)
class Job:
    """Something the chip will know at `due_s`: the answer's data, or the next job."""

    due_s: float
    finish: Callable[[float], bytes | Job]


class Pn532Chip:
    """The state machine. `rf_delay_s` is the air time of one exchange with a card.

    With `model_line_speed` bytes take their time on the wire, both ways.
    """

    def __init__(
        self,
        field: RfField,
        *,
        rf_delay_s: float = 0.0,
        model_line_speed: bool = False,
        seed: int = 0,
    ) -> None:
        self._field = field
        self._rf_delay_s = rf_delay_s
        self._model_line_speed = model_line_speed
        self._uart = HostUart(seed)
        self._decoder = frames.FrameDecoder()
        self._registers = Registers(field)
        self._job: Job | None = None
        self._outbox: deque[tuple[float, bytes]] = deque()
        self._commands: dict[int, Callable[[bytes, float], bytes | Job]] = {
            0x00: self._diagnose,
            0x02: self._get_firmware_version,
            0x06: self._read_register,
            0x08: self._write_register,
            0x10: self._set_serial_baud_rate,
            0x12: self._set_parameters,
            0x14: self._sam_configuration,
            0x16: self._power_down,
            0x32: self._rf_configuration,
            0x42: self._in_communicate_thru,
            0x4A: self._in_list_passive_target,
        }
        self.power_cycle()

    def power_cycle(self) -> None:
        """RSTPDN: everything as after power-on, the field off, the line at 115200 baud."""
        self._uart.reset()
        self._decoder.reset()
        self._registers.reset()
        self._field.switch(on=False)
        self._hung = False
        self._parameters = PARAMETERS_DEFAULT
        self._retry_timeout = RETRY_TIMEOUT_DEFAULT
        self._passive_retries = RETRIES_ENDLESS
        self._drop_work()
        self._last_answer: bytes | None = None

    def hang(self) -> None:
        """Stop answering, as readers in the field sometimes do, until `power_cycle`."""
        self._hung = True
        self._drop_work()

    def change_speed(self, baud: int) -> None:
        """Another line speed than its host believes, as a host leaves it that dies at work."""
        if baud not in BAUD_RATES:
            raise ValueError(f"the chip has no {baud} baud")
        self._drop_work()
        self._uart.baud = baud

    @property
    def baud(self) -> int:
        return self._uart.baud

    @property
    def next_due_s(self) -> float | None:
        """When `output` has something to do next; None while only the host can change that."""
        dues = [due_s for due_s, _ in self._outbox]
        if self._job is not None and self._job.due_s < math.inf:
            dues.append(self._job.due_s)
        return min(dues, default=None)

    def receive(self, data: bytes, now_s: float, line_baud: int | None) -> None:
        """Take what the host wrote at `line_baud`."""
        clear = self._uart.received(data, line_baud)
        if self._hung:
            return
        if self._model_line_speed:
            now_s += self._uart.byte_time_s(len(clear))
        for frame in self._decoder.feed(clear):
            if frame is frames.Control.ACK:
                self._host_ack()
            elif frame is frames.Control.NACK:
                self._resend(now_s)
            elif isinstance(frame, bytes):
                self._start(frame, now_s)

    def output(self, now_s: float, line_baud: int | None) -> bytes:
        """Finish what is due and give the bytes that the host sees."""
        while self._job is not None and self._job.due_s <= now_s:
            self._settle(self._job.finish(now_s), now_s)
        sent = b""
        while self._outbox and self._outbox[0][0] <= now_s:
            sent += self._outbox.popleft()[1]
        return self._uart.transmitted(sent, line_baud) if sent else b""

    # -- host dialogue (clause 6.2.2) ------------------------------------------------------------

    def _host_ack(self) -> None:
        """The host confirms an answer, or aborts what is under way (clause 6.2.1.3)."""
        self._uart.commit_baud()
        self._drop_work()

    def _resend(self, now_s: float) -> None:
        if self._last_answer is not None:
            self._send(self._last_answer, now_s)

    def _start(self, payload: bytes, now_s: float) -> None:
        """A new command replaces one that is still running."""
        self._drop_work()
        self._send(frames.ACK_FRAME, now_s)  # at once; a host may expect it within 15 ms
        try:
            if len(payload) < 2 or payload[0] != frames.HOST_TO_CHIP:
                raise CommandSyntaxError("not a host command")
            command = self._commands.get(payload[1])
            if command is None:
                raise CommandSyntaxError("unknown command")
            self._running = payload[1]
            self._settle(command(payload[2:], now_s), now_s)
        except CommandSyntaxError:
            self._answer(frames.SYNTAX_ERROR, now_s)

    def _settle(self, outcome: bytes | Job, now_s: float) -> None:
        if isinstance(outcome, Job):
            self._job = outcome
            return
        self._job = None
        self._answer(bytes([frames.CHIP_TO_HOST, self._running + 1]) + outcome, now_s)

    def _answer(self, payload: bytes, now_s: float) -> None:
        self._last_answer = frames.encode(payload)
        self._send(self._last_answer, now_s)

    def _send(self, frame: bytes, now_s: float) -> None:
        due_s = max(now_s, self._outbox[-1][0]) if self._outbox else now_s
        if self._model_line_speed:
            due_s += self._uart.byte_time_s(len(frame))
        self._outbox.append((due_s, frame))

    def _drop_work(self) -> None:
        self._job = None
        self._running = 0
        self._outbox.clear()

    # -- miscellaneous commands (clause 7.2) -----------------------------------------------------

    def _diagnose(self, data: bytes, _now_s: float) -> bytes:
        if not data:
            raise CommandSyntaxError("no test number")
        if data[0] == DIAGNOSE_LINE:
            return data
        if data[0] in (DIAGNOSE_ROM, DIAGNOSE_RAM) and len(data) == 1:
            return bytes([STATUS_OK])
        raise CommandSyntaxError("unknown test")

    def _get_firmware_version(self, data: bytes, _now_s: float) -> bytes:
        _expect(not data)
        return FIRMWARE

    def _read_register(self, data: bytes, _now_s: float) -> bytes:
        _expect(len(data) >= 2 and len(data) % 2 == 0)
        addresses = (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
        return bytes(self._registers.read(address) for address in addresses)

    def _write_register(self, data: bytes, _now_s: float) -> bytes:
        _expect(len(data) >= 3 and len(data) % 3 == 0)
        for at in range(0, len(data), 3):
            self._registers.write(int.from_bytes(data[at : at + 2], "big"), data[at + 2])
        return b""

    def _set_serial_baud_rate(self, data: bytes, _now_s: float) -> bytes:
        _expect(len(data) == 1 and data[0] < len(BAUD_RATES))
        self._uart.schedule_baud(BAUD_RATES[data[0]])
        return b""

    def _set_parameters(self, data: bytes, _now_s: float) -> bytes:
        _expect(len(data) == 1)
        self._parameters = data[0]
        return b""

    def _sam_configuration(self, data: bytes, _now_s: float) -> bytes:
        # Clause 7.2.10: mode 1 (normal) to 4 (dual card), then optional timeout and IRQ use.
        _expect(1 <= len(data) <= 3 and 1 <= data[0] <= 4)
        return b""

    def _power_down(self, data: bytes, _now_s: float) -> bytes:
        _expect(1 <= len(data) <= 2)
        self._field.switch(on=False)
        self._uart.sleep(wake_by_host=bool(data[0] & WAKE_BY_HSU))
        return bytes([STATUS_OK])

    # -- radio (clause 7.3) ----------------------------------------------------------------------

    def _rf_configuration(self, data: bytes, _now_s: float) -> bytes:
        _expect(bool(data) and ITEM_BYTES.get(data[0]) == len(data) - 1)
        item, values = data[0], data[1:]
        if item == ITEM_FIELD:
            self._field.switch(on=bool(values[0] & FIELD_ON_BIT))
        elif item == ITEM_TIMINGS:
            _expect(values[1] <= TIMEOUT_INDEX_MAX and values[2] <= TIMEOUT_INDEX_MAX)
            self._retry_timeout = values[2]
        elif item == ITEM_RETRIES:
            self._passive_retries = values[2]
        return b""

    def _in_list_passive_target(self, data: bytes, now_s: float) -> bytes | Job:
        _expect(len(data) >= 2 and 1 <= data[0] <= TARGETS_MAX and data[1] <= BRTY_MAX)
        self._field.switch(on=True)
        wanted_uid = _uid_of_cascade(data[2:]) if data[1] == TYPE_A_106 else None
        return self._poll(now_s, wanted_uid, tries=self._passive_retries + 1)

    def _poll(self, now_s: float, wanted_uid: bytes | None, tries: int) -> Job:
        endless = self._passive_retries == RETRIES_ENDLESS
        wait_s = max(self._rf_delay_s, ENDLESS_POLL_S) if endless else self._rf_delay_s

        def finish(at_s: float) -> bytes | Job:
            found = self._activate(wanted_uid)
            if found is not None:
                return found
            if endless or tries > 1:
                return self._poll(at_s, wanted_uid, tries - 1)
            self._registers.no_answer_to_reqa()
            return b"\x00"

        return Job(now_s + wait_s, finish)

    def _activate(self, wanted_uid: bytes | None) -> bytes | None:
        """Target data of clause 7.3.5 for one type A card, or None."""
        card = None if wanted_uid is None else self._field.activate(wanted_uid)
        if card is None:
            return None
        self._registers.type_a_framing()
        found = (
            bytes([0x01, 0x01]) + card.atqa.to_bytes(2, "big") + bytes([card.sak, len(card.uid)])
        )
        found += card.uid
        if self._parameters & AUTOMATIC_RATS and card.sak & ISO_DEP_SAK:
            ats = self._field.exchange(FIRMWARE_RATS)
            return None if ats is None else found + ats[0].frame
        return found

    def _in_communicate_thru(self, data: bytes, now_s: float) -> Job:
        _expect(bool(data))
        index = self._retry_timeout
        limit_s = TIMEOUT_STEP_S * 2 ** (index - 1) if index else math.inf
        silence = Job(now_s + limit_s, lambda _at_s: bytes([STATUS_TIMEOUT]))
        session = self._field.session
        frame = self._framed(data)
        outcome = None if frame is None else self._field.exchange(frame)
        if outcome is None or self._rf_delay_s > limit_s:
            return silence

        def finish(_at_s: float) -> bytes | Job:
            if self._field.session != session:
                return silence  # lifted on the way: the card has worked, its answer is lost
            self._field.answered()
            return self._card_answer(*outcome)

        return Job(now_s + self._rf_delay_s, finish)

    def _framed(self, data: bytes) -> bytes | None:
        """The frame as a card gets it; None when the host's own CRC is wrong."""
        if self._registers.tx_crc:
            return data
        body, check = data[:-CRC_BYTES], data[-CRC_BYTES:]
        return body if crc_a(body) == check else None

    def _card_answer(self, answer: CardAnswer, garbled: bool) -> bytes:
        if self._registers.rx_crc:
            if garbled or answer.short:  # a 4-bit NAK has no CRC and fails the check
                return bytes([STATUS_CRC])
            return bytes([STATUS_OK]) + answer.frame
        frame = answer.frame if answer.short else answer.frame + crc_a(answer.frame)
        if garbled:
            frame = bytes([frame[0] ^ 0xFF]) + frame[1:]
        return bytes([STATUS_OK]) + frame


def _expect(condition: bool) -> None:
    if not condition:
        raise CommandSyntaxError("parameters out of range")


def _uid_of_cascade(initiator_data: bytes) -> bytes:
    """InitiatorData for 106A: a UID with the cascade tags of ISO/IEC 14443-3 between its levels."""
    levels = [initiator_data[at : at + 4] for at in range(0, len(initiator_data), 4)]
    last = len(levels) - 1
    return b"".join(
        level[1:] if at < last and level[0] == CASCADE_TAG else level
        for at, level in enumerate(levels)
    )
