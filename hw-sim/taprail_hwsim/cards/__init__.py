"""Virtual cards: genuine, cloned and plain. Pure state; the reader brings field and time."""

from taprail_hwsim.cards.base import Card, CardAnswer
from taprail_hwsim.cards.keycard import KeycardCash, Quirks
from taprail_hwsim.cards.ntag21x import Ntag21x
from taprail_hwsim.cards.ntag424 import Ntag424, ReplayedCard
from taprail_hwsim.cards.ntag424_chip import Ntag424Chip
from taprail_hwsim.cards.strangers import BankCard, SwappedCard
from taprail_hwsim.cards.troubled import MisshapenCard, SlowCard

__all__ = [
    "BankCard",
    "Card",
    "CardAnswer",
    "KeycardCash",
    "MisshapenCard",
    "Ntag21x",
    "Ntag424",
    "Ntag424Chip",
    "Quirks",
    "ReplayedCard",
    "SlowCard",
    "SwappedCard",
]
