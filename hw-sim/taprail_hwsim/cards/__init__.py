"""Virtual cards: genuine, cloned and plain. Pure state; the reader brings field and time."""

from taprail_hwsim.cards.base import Card, CardAnswer
from taprail_hwsim.cards.ntag21x import Ntag21x
from taprail_hwsim.cards.ntag424 import Ntag424, ReplayedCard

__all__ = ["Card", "CardAnswer", "Ntag21x", "Ntag424", "ReplayedCard"]
