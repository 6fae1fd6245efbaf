"""The tables in which identities are kept. Of every secret there is a digest alone."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database, Migrations

MIGRATIONS: Final = Migrations("identity")


@MIGRATIONS()
def _0001_tokens(db: Database) -> None:
    db.table("token").create(
        {"id": str, "digest": str, "role": str, "tenant": str, "scopes": str, "expires_ns": int, "made_by": str, "made_ns": int},
        pk="id",
        not_null={"digest", "role", "tenant", "expires_ns", "made_by", "made_ns"},
    )
    db.table("token").create_index(["digest"], unique=True)


@MIGRATIONS()
def _0002_users(db: Database) -> None:
    db.table("user").create(
        {
            "name": str,
            "digest": str,
            "role": str,
            "tenant": str,
            "disabled": int,
            "made_by": str,
            "made_ns": int,
            "password_ns": int,
        },
        pk="name",
        not_null={"digest", "role", "tenant", "disabled", "made_by", "made_ns", "password_ns"},
    )
    db.table("token").add_column("owner", str, not_null_default="")
    db.table("token").add_column("used_ns", int, not_null_default=0)


@MIGRATIONS()
def _0003_certificates(db: Database) -> None:
    db.table("certificate_principal").create(
        {"fingerprint": str, "name": str, "role": str, "tenant": str, "expires_ns": int, "made_by": str, "made_ns": int, "revoked_ns": int},
        pk="fingerprint",
        not_null={"name", "role", "tenant", "expires_ns", "made_by", "made_ns", "revoked_ns"},
    )
