"""What whoever follows the log from afar gets of it."""

from __future__ import annotations

import msgspec

from gateway.telemetry.logs import Tap


def test_what_opens_a_door_is_told_on_the_console_alone() -> None:
    tap, event = Tap(), {"event": "claim_code", "code": "AAAA-BBBB", "good_for_s": 3600}
    assert tap(None, "", event) == {"event": "claim_code", "code": "AAAA-BBBB", "good_for_s": 3600}
    lines, following, left_out = tap.since(0)
    assert [msgspec.json.decode(line)["code"] for line in lines] == ["(on the console)"]
    assert (following, left_out) == (1, 0)
