"""How devices are is looked at beside everything that changes them."""

from __future__ import annotations

from pathlib import Path

from gateway.audit import Audit
from gateway.authority import Authority
from gateway.authority.certificates import Certificates
from gateway.latest import Latest
from gateway.registry import registry
from gateway.registry.life import LifeState
from gateway.registry.registry import Kind, Registry
from gateway.state import State
from protocols.clock import SystemClock
from tests import builders


async def test_a_device_that_goes_while_it_is_looked_at_ends_nothing(tmp_path: Path) -> None:
    clock, latest = SystemClock(), Latest()
    devices = [builders.floats(1, name) for name in ("one", "two")]
    for device in devices:
        latest.add(device)
        latest.update(builders.batch(device, [1.0]))

    def kind_of(name: str) -> Kind | None:
        """Asked for the first device, the second is taken out of the site."""
        if name == "one":
            latest.remove(devices[1])
        return "field"

    state = await State.open(tmp_path, [registry.MIGRATIONS], clock)
    certificates = Certificates(Authority(tmp_path / "authority", "plant edge", clock), state, clock)
    here = Registry(state, certificates, Audit(clock), latest, clock, kind_of=kind_of)
    await here.look()
    assert (here.get("one").state, here.names()) == (LifeState.ACTIVE, ["one"])
    await state.close()
