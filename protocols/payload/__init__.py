"""What devices say in messages: JSON, CBOR, SenML, text, CSV, XML, raw bytes and Sparkplug, to batches and back.

Shared by every driver whose devices send payloads (MQTT, CoAP, HTTP). Pure; the codecs' packages are known here alone.
"""

from protocols.payload.check import check, payload_problems, place_problem, problems_of_tag
from protocols.payload.decoder import Decoder
from protocols.payload.formats import (
    COAP_FORMAT_OF,
    MEDIA_TYPE_OF,
    Format,
    format_of_coap,
    format_of_media_type,
)
from protocols.payload.options import PayloadOptions, PayloadTag
from protocols.payload.writing import encode

__all__ = [
    "COAP_FORMAT_OF",
    "MEDIA_TYPE_OF",
    "Decoder",
    "Format",
    "PayloadOptions",
    "PayloadTag",
    "check",
    "encode",
    "format_of_coap",
    "format_of_media_type",
    "payload_problems",
    "place_problem",
    "problems_of_tag",
]
