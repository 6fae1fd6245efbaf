"""``docs/reference/api.md``: every operation of the API on one page, made from the OpenAPI document. Pure."""

from __future__ import annotations

from typing import Any, Final

from gateway.api.document import operations
from gateway.identity.principal import LEAST_ROLE, MEANING, Permission

Json = dict[str, Any]  # Any: JSON

_CONVENTIONS: Final = """
Everything that people and machines on site ask and change goes through it. It is served over TLS 1.3 alone, where the site document has
an `api` section. The exact description is [openapi.json](openapi.json) (OpenAPI 3.1), which `holdfast openapi` prints without a gateway
and a running gateway gives at `/api/v1/openapi.json`. Programs in Python use [holdfast.client](../how-to/use-the-api-from-python.md).
What may change in it, and what never does, is in [the compatibility policy](../explanation/api-compatibility.md).

## Conventions

- **Who asks**: `Authorization: Bearer TOKEN`, or a session cookie. Each operation needs one permission; a role has it, a token may be
  narrowed.
- **Tenants**: whoever is bound to a tenant uses operations whose reach is *devices* and sees its own devices alone: others are 404, as
  what does not exist. Operations whose reach is *gateway* are refused (403).
- **Times** are integer nanoseconds UTC and end in `_ns`, durations are seconds and end in `_s`. Integers have up to 64 bits: a reader
  that takes all numbers for doubles loses digits. NaN and infinities are the strings `"NaN"`, `"Infinity"`, `"-Infinity"`; bytes are
  base64; a value whose quality is bad is null.
- **Lists** come in pages: `limit` and `cursor`; `next` of a page is the cursor of the one after, null at the end. What is added or
  removed meanwhile moves nothing.
- **Errors** are problem details (RFC 9457): `type` is for programs and stays, `detail` and `advice` are for people and may be said
  better, `problems` names each thing that is wrong in what was sent.
- **ETags**: each JSON answer has one; `If-None-Match` saves sending it again, `If-Match` on a write refuses (412) what was decided on
  an old state.
- **Idempotency keys**: a write with `Idempotency-Key` is carried out once; the same request with the same key is answered the same for
  24 hours (`Idempotency-Replayed: true`), another request with that key is refused (422), and while the first still runs it is 409.
  Keys are each caller's own. Answers that hold a secret are never kept.
- **Bounds**: bodies up to 1 MiB unless said otherwise (413), JSON at most 32 deep, all lengths and numbers as the description says.
  What is asked too often gets 429, what cannot be just now 503; both say when to come back (`Retry-After`).
"""


def api_page(made: Json, note: str) -> str:
    """The page, from the OpenAPI document."""
    parts = ["# The local API", "", note, _CONVENTIONS.strip(), "", "## Who may do what", ""]
    parts += ["| permission | least role | what it allows |", "|---|---|---|"]
    parts += [f"| `{each}` | {LEAST_ROLE[each]} | {MEANING[each]} |" for each in Permission]
    by_tag: dict[str, list[str]] = {}
    for path, method, said in operations(made):
        needs = f"`{said['x-holdfast-permission']}`" if "x-holdfast-permission" in said else "nothing"
        row = f"| `{method.upper()} {path}` | `{said['operationId']}` | {said['summary']} | {needs} | {said['x-holdfast-reach']} |"
        by_tag.setdefault(said["tags"][0], []).append(row)
    for tag, rows in sorted(by_tag.items()):
        parts += [
            "",
            f"## {tag.capitalize()}",
            "",
            "| request | operation id | what it does | needs | reach |",
            "|---|---|---|---|---|",
            *rows,
        ]
    return "\n".join([*parts, ""])
