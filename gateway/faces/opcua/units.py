"""Units as OPC UA clients know them: the codes of UNECE Recommendation 20 (OPC 10000-8, 5.6.4.3)."""

from __future__ import annotations

from typing import Final

UNECE: Final = "http://www.opcfoundation.org/UA/units/un/cefact"

CODES: Final[dict[str, str]] = {
    "%": "P1", "‰": "NX", "ppm": "59", "ppb": "61", "pH": "Q30", "dB": "2N",
    "°C": "CEL", "degC": "CEL", "C": "CEL", "°F": "FAH", "degF": "FAH", "K": "KEL",
    "Pa": "PAL", "hPa": "A97", "kPa": "KPA", "MPa": "MPA", "bar": "BAR", "mbar": "MBR", "psi": "PS",
    "V": "VLT", "mV": "2Z", "kV": "KVT", "A": "AMP", "mA": "4K", "kA": "B22",
    "W": "WTT", "kW": "KWT", "MW": "MAW", "VA": "D46", "kVA": "KVA", "MVA": "MVA", "var": "D44", "kvar": "KVR", "Mvar": "MAR",
    "Wh": "WHR", "kWh": "KWH", "MWh": "MWH", "GWh": "GWH", "J": "JOU", "kJ": "KJO", "MJ": "3B", "GJ": "GV",
    "Hz": "HTZ", "kHz": "KHZ", "MHz": "MHZ", "rpm": "RPM", "1/min": "RPM",
    "m": "MTR", "mm": "MMT", "cm": "CMT", "km": "KMT", "µm": "4H", "in": "INH", "ft": "FOT",
    "m²": "MTK", "m2": "MTK", "m³": "MTQ", "m3": "MTQ", "l": "LTR", "L": "LTR", "ml": "MLT", "mL": "MLT",
    "m³/h": "MQH", "m3/h": "MQH", "m³/s": "MQS", "m3/s": "MQS", "l/min": "L2", "L/min": "L2", "l/s": "G51", "L/s": "G51",
    "kg": "KGM", "g": "GRM", "mg": "MGM", "t": "TNE", "kg/h": "E93", "kg/s": "KGS",
    "s": "SEC", "ms": "C26", "min": "MIN", "h": "HUR", "d": "DAY",
    "N": "NEW", "kN": "B47", "Nm": "NU", "m/s": "MTS", "km/h": "KMH", "m/s²": "MSK", "m/s2": "MSK",
    "°": "DD", "deg": "DD", "rad": "C81",
    "Ω": "OHM", "Ohm": "OHM", "kΩ": "B49", "MΩ": "B75", "S": "SIE", "F": "FAR", "H": "81", "T": "D33",
    "lx": "LUX", "lm": "LUM", "cd": "CDL", "W/m²": "D54", "W/m2": "D54",
    "kg/m³": "KMQ", "kg/m3": "KMQ", "g/m³": "A93", "g/m3": "A93", "mg/m³": "GP", "mg/m3": "GP", "µg/m³": "GQ", "ug/m3": "GQ",
}  # fmt: skip
"""Common code by the text that people write."""

UNKNOWN: Final = -1
"""Unit id where there is no code (OPC 10000-8, 5.6.4.3)."""


def unit_id(unit: str) -> int:
    """The number that stands for ``unit``: the characters of its common code, one byte each; UNKNOWN where it has none."""
    code = CODES.get(unit.strip())
    return int.from_bytes(code.encode(), "big") if code else UNKNOWN
