"""How the simulated plant behaves: pure models of a boiler, a tank with pump and three energy meters.

Each model is a handful of balances, stepped by ``step(dt)`` with ``dt`` in seconds; no clock, no socket. Noise comes
from a seeded generator, so a plant with the same seed lives the same life. The figures are those of a 6 MW fire-tube
boiler, a 3 m3 buffer tank and a 400 V distribution board: plausible to somebody who works with them, not exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Final

GAS_KWH_PER_M3: Final = 10.4
STEAM_KWH_PER_T: Final = 660.0
"""Heat to make a tonne of 10 bar steam out of feedwater at 105 degrees."""
BOILER_MW_MAX: Final = 6.0
BOILER_KWH_PER_BAR: Final = 55.0
"""Heat that the boiler's water takes up for each bar of pressure."""
DRUM_T_PER_PERCENT: Final = 0.045
TANK_M2: Final = 1.2
GRAVITY: Final = 9.81


def limit(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def saturation_c(bar: float) -> float:
    """Temperature of saturated steam at ``bar`` gauge, in degrees Celsius (Antoine's equation for water, 99 to 374)."""
    mm_hg = (bar + 1.013) * 750.06
    return 1810.94 / (8.14019 - math.log10(mm_hg)) - 244.485


@dataclass(slots=True)
class Wander:
    """A value that wanders around ``mean`` and is pulled back (Ornstein-Uhlenbeck): demand, voltage, weather."""

    random: Random
    mean: float
    spread: float
    """Standard deviation in the long run."""
    relax_s: float
    """Time after which it has mostly forgotten where it was."""
    value: float = math.nan

    def __post_init__(self) -> None:
        self.value = self.random.gauss(self.mean, self.spread)

    def step(self, dt: float) -> float:
        keep = math.exp(-dt / self.relax_s)
        self.value = self.mean + (self.value - self.mean) * keep + self.spread * math.sqrt(1 - keep * keep) * self.random.gauss(0, 1)
        return self.value


@dataclass(slots=True)
class Lag:
    """A value that follows another with a first-order delay: a thermometer, a shaft, a valve."""

    value: float
    time_s: float

    def step(self, target: float, dt: float) -> float:
        self.value += (target - self.value) * (1 - math.exp(-dt / self.time_s))
        return self.value


@dataclass(slots=True)
class Boiler:
    """A modulating gas burner holds steam pressure against a wandering demand; feedwater holds the drum level."""

    random: Random
    enabled: bool = True
    setpoint_bar: float = 10.0
    pressure_bar: float = 9.7
    level_percent: float = 52.0
    burning: bool = True
    modulation_percent: float = 55.0
    steam_t_h: float = 5.0
    feedwater_t_h: float = 5.0
    gas_m3_h: float = 0.0
    oxygen_percent: float = 20.9
    starts: int = 1204
    runtime_s: float = 31_284_000.0
    feedwater_total_m3: float = 48_211.337
    gas_total_m3: float = 3_104_552.4
    demand: Wander = field(init=False)
    feedwater_c: Wander = field(init=False)
    flue: Lag = field(init=False)

    def __post_init__(self) -> None:
        self.demand = Wander(self.random, mean=5.2, spread=1.4, relax_s=45)
        self.feedwater_c = Wander(self.random, mean=104.5, spread=0.6, relax_s=120)
        self.flue = Lag(178.0, time_s=40)

    def step(self, dt: float) -> None:
        self.steam_t_h = limit(self.demand.step(dt), 0.4, 9.5) * math.sqrt(limit(self.pressure_bar, 0, 16) / 10)
        self._fire(dt)
        self._balance(dt)
        self.feedwater_c.step(dt)
        self.flue.step(115 + 0.95 * self.modulation_percent if self.burning else 75, dt)

    def _fire(self, dt: float) -> None:
        """On below the setpoint, off well above it, modulating between; the burner cannot go under 20 % of its load."""
        was = self.burning
        high, low = self.setpoint_bar + 0.6, self.setpoint_bar - 0.4
        self.burning = self.enabled and self.low_water is False and (self.pressure_bar < high if was else self.pressure_bar < low)
        self.starts += self.burning and not was
        if not self.burning:
            self.modulation_percent = self.gas_m3_h = 0.0
            self.oxygen_percent = 20.9
            return
        wanted = limit(62 + 70 * (self.setpoint_bar - self.pressure_bar), 20, 100)
        self.modulation_percent += limit(wanted - self.modulation_percent, -8 * dt, 8 * dt)
        self.modulation_percent = limit(self.modulation_percent, 20, 100)
        self.gas_m3_h = BOILER_MW_MAX * 1000 * self.modulation_percent / 100 / GAS_KWH_PER_M3
        self.oxygen_percent = 2.8 + 0.02 * (100 - self.modulation_percent) + self.random.gauss(0, 0.05)
        self.runtime_s += dt

    def _balance(self, dt: float) -> None:
        """Heat in against steam out gives pressure; water in against steam out gives level; counters add up."""
        hours = dt / 3600
        heat = self.gas_m3_h * GAS_KWH_PER_M3 * self.efficiency - self.steam_t_h * STEAM_KWH_PER_T - 25
        # the model's boiler answers twenty times as fast as a real one, so that a person sees it live
        self.pressure_bar = limit(self.pressure_bar + 20 * heat * hours / BOILER_KWH_PER_BAR, 0, 16)
        self.feedwater_t_h = limit(self.steam_t_h + 0.6 * (55 - self.level_percent), 0, 12)
        self.level_percent = limit(
            self.level_percent + (self.feedwater_t_h - self.steam_t_h) * hours / DRUM_T_PER_PERCENT + self.random.gauss(0, 0.03), 0, 100
        )
        self.feedwater_total_m3 += self.feedwater_t_h * hours / 0.955  # t to m3 at 105 degrees
        self.gas_total_m3 += self.gas_m3_h * hours

    @property
    def efficiency(self) -> float:
        """Share of the gas that reaches the water: flue losses after Siegert, 87 to 91 %."""
        return 1 - 0.0007 * (self.flue.value - 20) * (1 + 0.02 * max(self.oxygen_percent - 3, 0)) if self.burning else 0.0

    @property
    def temperature_c(self) -> float:
        return saturation_c(self.pressure_bar)

    @property
    def low_water(self) -> bool:
        return self.level_percent < 25

    @property
    def high_pressure(self) -> bool:
        return self.pressure_bar > self.setpoint_bar + 1.5

    @property
    def electrical_kw(self) -> float:
        """Fan and feedwater pump: with the cube of the air, and with the flow."""
        fan = 2.0 + 9.0 * (self.modulation_percent / 100) ** 3 if self.burning else 0.3
        return fan + 0.9 * self.feedwater_t_h


@dataclass(slots=True)
class Tank:
    """A pump fills a buffer tank between two levels (hysteresis); water leaves by gravity through a valve."""

    random: Random
    automatic: bool = True
    hand_on: bool = False
    start_m: float = 1.4
    stop_m: float = 2.1
    level_m: float = 1.47
    pump_on: bool = False
    starts: int = 8_871
    runtime_s: float = 9_310_442.0
    delivered_total_m3: float = 61_022.18
    inflow_m3_h: float = 0.0
    outflow_m3_h: float = 20.0
    speed: Lag = field(init=False)
    valve: Wander = field(init=False)
    water_c: Wander = field(init=False)

    def __post_init__(self) -> None:
        self.speed = Lag(0.0, time_s=1.5)
        self.valve = Wander(self.random, mean=48, spread=9, relax_s=40)
        self.water_c = Wander(self.random, mean=11.4, spread=0.7, relax_s=300)

    def step(self, dt: float) -> None:
        self._switch()
        rpm = self.speed.step(2910.0 if self.pump_on else 0.0, dt)
        head_m = 18 * (rpm / 2910) ** 2 - 6 - self.level_m  # pump curve at no flow, less 6 m of lift and the water in the tank
        self.inflow_m3_h = 14 * math.sqrt(head_m) if head_m > 0 else 0.0
        opening = limit(self.valve.step(dt), 5, 100) / 100
        self.outflow_m3_h = 3600 * opening * 0.0019 * math.sqrt(2 * GRAVITY * max(self.level_m, 0))
        self.level_m = limit(self.level_m + (self.inflow_m3_h - self.outflow_m3_h) / 3600 * dt / TANK_M2, 0, 2.5)
        self.delivered_total_m3 += self.inflow_m3_h * dt / 3600
        self.runtime_s += dt if self.pump_on else 0.0
        self.water_c.step(dt)

    def _switch(self) -> None:
        was = self.pump_on
        if self.automatic:
            self.pump_on = self.level_m < self.stop_m if was else self.level_m < self.start_m
        else:
            self.pump_on = self.hand_on
        self.starts += self.pump_on and not was

    @property
    def volume_m3(self) -> float:
        return self.level_m * TANK_M2

    @property
    def electrical_kw(self) -> float:
        turn = self.speed.value / 2910
        return 2.6 * turn**3 + 0.035 * self.inflow_m3_h if self.pump_on else 0.02

    @property
    def current_a(self) -> float:
        """Motor current: six times the rated one while it starts."""
        start = 1 + 5 * (1 - self.speed.value / 2910) if self.pump_on else 0.0
        return 6.4 * start + self.random.gauss(0, 0.03) if self.pump_on else 0.0

    @property
    def low(self) -> bool:
        return self.level_m < 1.0

    @property
    def high(self) -> bool:
        return self.level_m > 2.3


@dataclass(slots=True)
class Grid:
    """The supply that all meters share."""

    random: Random
    frequency: Wander = field(init=False)
    volts: list[Wander] = field(init=False)

    def __post_init__(self) -> None:
        self.frequency = Wander(self.random, mean=50.0, spread=0.018, relax_s=20)
        self.volts = [Wander(self.random, mean=mean, spread=1.1, relax_s=15) for mean in (231.2, 230.4, 229.7)]

    def step(self, dt: float) -> None:
        self.frequency.step(dt)
        for each in self.volts:
            each.step(dt)


@dataclass(slots=True)
class Meter:
    """A three-phase meter: sees the grid's voltages and a load in kilowatts, and counts energy without rounding."""

    random: Random
    grid: Grid
    power_factor: float
    shares: tuple[float, float, float]
    import_wh: float
    export_wh: float = 0.0
    kw: float = 0.0
    volts: tuple[float, ...] = (230.0, 230.0, 230.0)
    phase_kw: tuple[float, ...] = (0.0, 0.0, 0.0)
    amps: tuple[float, ...] = (0.0, 0.0, 0.0)

    def step(self, dt: float, load_kw: float) -> None:
        self.kw = load_kw * (1 + self.random.gauss(0, 0.002))
        self.volts = tuple(wander.value - 0.012 * abs(self.kw) for wander in self.grid.volts)
        self.phase_kw = tuple(self.kw * share for share in self.shares)
        self.amps = tuple(abs(kw) * 1000 / (volt * self.power_factor) for kw, volt in zip(self.phase_kw, self.volts, strict=True))
        energy = self.kw * dt / 3.6
        self.import_wh += max(energy, 0.0)
        self.export_wh += max(-energy, 0.0)

    @property
    def apparent_kva(self) -> float:
        return abs(self.kw) / self.power_factor

    @property
    def reactive_kvar(self) -> float:
        return math.sqrt(max(self.apparent_kva**2 - self.kw**2, 0.0))

    @property
    def line_volts(self) -> tuple[float, float, float]:
        """Between the phases, 120 degrees apart."""
        a, b, c = self.volts
        return tuple(math.sqrt(x * x + y * y + x * y) for x, y in ((a, b), (b, c), (c, a)))  # type: ignore[return-value]  # three pairs


@dataclass(slots=True)
class Plant:
    """The whole plant. What one part does is seen by the others: the pump's load shows in its meter and in the main one."""

    seed: int = 1
    boiler: Boiler = field(init=False)
    tank: Tank = field(init=False)
    grid: Grid = field(init=False)
    main: Meter = field(init=False)
    boiler_house: Meter = field(init=False)
    water_works: Meter = field(init=False)
    office: Wander = field(init=False)
    sun: Wander = field(init=False)

    def __post_init__(self) -> None:
        random = Random(self.seed)
        self.boiler, self.tank, self.grid = Boiler(random), Tank(random), Grid(random)
        self.main = Meter(random, self.grid, 0.94, (0.35, 0.33, 0.32), import_wh=9_204_311_870.0, export_wh=18_400_220.0)
        self.boiler_house = Meter(random, self.grid, 0.91, (0.34, 0.33, 0.33), import_wh=640_112_400.0)
        self.water_works = Meter(random, self.grid, 0.86, (0.33, 0.34, 0.33), import_wh=88_420_117.0)
        self.office = Wander(random, mean=38, spread=5, relax_s=60)
        self.sun = Wander(random, mean=30, spread=12, relax_s=50)

    def step(self, dt: float) -> None:
        """Move everything on by ``dt`` seconds; long steps are cut so that no balance overshoots."""
        for _ in range(parts := max(1, math.ceil(dt / 0.25))):
            self._step(dt / parts)

    def _step(self, dt: float) -> None:
        self.boiler.step(dt)
        self.tank.step(dt)
        self.grid.step(dt)
        self.boiler_house.step(dt, self.boiler.electrical_kw)
        self.water_works.step(dt, self.tank.electrical_kw)
        used = self.boiler_house.kw + self.water_works.kw + max(self.office.step(dt), 5)
        self.main.step(dt, used - max(self.sun.step(dt), 0))
