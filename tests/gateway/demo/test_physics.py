"""The models behave as a boiler, a tank and a distribution board do."""

from __future__ import annotations

import math

import pytest

from gateway.demo.physics import Plant, saturation_c


def lived(seconds: int, seed: int = 1) -> Plant:
    plant = Plant(seed)
    for _ in range(seconds):
        plant.step(1.0)
    return plant


@pytest.mark.parametrize(("bar", "celsius"), [(0.0, 100.0), (5.0, 159.0), (10.0, 184.1), (15.0, 201.4)])
def test_saturated_steam_follows_the_steam_table(bar: float, celsius: float) -> None:
    """Temperature and pressure of saturated steam agree with the steam table within half a degree."""
    assert saturation_c(bar) == pytest.approx(celsius, abs=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_controls_hold_the_plant_in_its_range(seed: int) -> None:
    """Over an hour pressure, drum level and tank level stay where their controls hold them."""
    plant = Plant(seed)
    for _ in range(3600):
        plant.step(1.0)
        assert 7.5 < plant.boiler.pressure_bar < 11.5
        assert 40 < plant.boiler.level_percent < 70
        assert 1.2 < plant.tank.level_m < 2.3
        assert 49.8 < plant.grid.frequency.value < 50.2


def test_the_pump_switches_by_hysteresis() -> None:
    """The pump starts only below the lower level and stops only above the upper one."""
    plant = Plant()
    switched = 0
    for _ in range(1800):
        was, level = plant.tank.pump_on, plant.tank.level_m
        plant.step(0.25)
        if plant.tank.pump_on != was:
            switched += 1
            assert level < plant.tank.start_m if plant.tank.pump_on else level >= plant.tank.stop_m
    assert switched >= 2


def test_counters_only_rise() -> None:
    """Totals and running hours never go back."""
    plant = Plant()
    before = (0.0,) * 5
    for _ in range(600):
        plant.step(0.5)
        boiler, tank = plant.boiler, plant.tank
        now = (boiler.feedwater_total_m3, boiler.gas_total_m3, tank.delivered_total_m3, plant.main.import_wh, plant.main.export_wh)
        assert all(a <= b for a, b in zip(before, now, strict=True))
        before = now


def test_energy_is_the_integral_of_power() -> None:
    """What a meter counts is what the power that it shows adds up to."""
    plant, counted = Plant(), 0.0
    began = plant.boiler_house.import_wh
    for _ in range(2400):
        plant.step(0.25)
        counted += plant.boiler_house.kw * 0.25 / 3.6
    assert plant.boiler_house.import_wh - began == pytest.approx(counted, rel=1e-9)


def test_phases_agree_with_the_total() -> None:
    """The phases' powers add up to the total, and phase to phase voltage is the root of three times the phase voltage."""
    meter = lived(30).main
    assert math.fsum(meter.phase_kw) == pytest.approx(meter.kw)
    for volts in meter.line_volts:
        assert volts == pytest.approx(math.sqrt(3) * sum(meter.volts) / 3, rel=0.02)


def test_the_same_seed_lives_the_same_life() -> None:
    """Two plants with one seed are equal to the last bit; another seed differs."""
    assert lived(60).boiler.pressure_bar == lived(60).boiler.pressure_bar
    assert lived(60).boiler.pressure_bar != lived(60, seed=2).boiler.pressure_bar


def test_a_disabled_boiler_goes_out() -> None:
    """Without its enable the burner stops at once and the pressure falls."""
    plant = lived(60)
    before = plant.boiler.pressure_bar
    plant.boiler.enabled = False
    for _ in range(60):
        plant.step(1.0)
    assert not plant.boiler.burning
    assert plant.boiler.gas_m3_h == 0
    assert plant.boiler.pressure_bar < before
