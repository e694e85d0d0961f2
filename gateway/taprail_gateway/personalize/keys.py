"""Which keys a card of ours has: all five follow from the issuer's keys and the card's UID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from taprail_common import sun
from taprail_gateway.personalize.session import FACTORY, KeySet
from taprail_gateway.proofs import IssuerKeys

_MASTER, _SPARE = 0, (3, 4)
"""Numbers of the keys that nothing is read by: the one that may change all, and those that guard a
file that is not used. They are changed all the same: nobody else shall put anything there."""
_MAX_VERSION: Final = 0xFF


def key_set(issuer: IssuerKeys, version: int, uid: bytes) -> KeySet:
    """The keys of the card with this UID, by the issuer's keys of one version."""
    if not 1 <= version <= _MAX_VERSION:
        raise ValueError("a chip tells versions of one byte, and 0 is the factory's")
    master = issuer.sun_master_key
    return KeySet(
        version,
        (
            sun.diversify(master, uid, _MASTER),
            issuer.meta_read_key,
            sun.diversify(master, uid),
            *(sun.diversify(master, uid, number) for number in _SPARE),
        ),
    )


def older_sets(issuers: Mapping[int, IssuerKeys], version: int, uid: bytes) -> Sequence[KeySet]:
    """What a card may have that is to get this version: the factory's keys, or other ones of this
    issuer."""
    others = (key_set(keys, each, uid) for each, keys in issuers.items() if each != version)
    return (FACTORY, *others)
