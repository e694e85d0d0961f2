"""Cards that sign for themselves: accounts without a key here, and what such a card has signed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PROFILE: Final = "ck_cards_profile"


def upgrade() -> None:
    with changing("accounts") as batch:
        batch.alter_column(
            "wrapped_key",
            existing_type=sa.LargeBinary(),
            nullable=True,
            existing_comment="secp256k1, wrapped",
            comment="secp256k1, wrapped; unset: only its card has it",
        )
        batch.create_table_comment(
            "Payers' accounts: the chain's balance at a block, and what of it is held",
            existing_comment=(
                "Prepaid accounts in custody: the chain's balance at a block,"
                " and what of it is held"
            ),
        )
    with changing("cards") as batch:
        batch.drop_constraint(op.f(PROFILE), type_="check")
        batch.create_check_constraint(op.f(PROFILE), "profile IN ('sun', 'uid', 'signed')")
        batch.alter_column(
            "uid_digest",
            existing_type=sa.String(64),
            existing_nullable=False,
            existing_comment="keyed hash of the UID",
            comment="keyed hash of the UID, or of a signing card's address",
        )
    op.create_table(
        "card_authorizations",
        sa.Column("payment_id", sa.String(66), nullable=False),
        sa.Column("valid_before_s", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False, comment="r, s, v: 65 bytes"),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_card_authorizations_payment_id")
        ),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_card_authorizations")),
        comment="What signing cards have signed; nobody here could sign it again",
    )


def changing(table: str) -> AbstractContextManager[Any]:
    """SQLite changes a table by building it anew, PostgreSQL alters it in place."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    return op.batch_alter_table(table, recreate="always" if sqlite else "never")
