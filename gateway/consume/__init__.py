"""The reference consumer: proves at the far end of the broker that nothing is missing. Made to be copied.

``decode.py`` turns messages into records, ``account.py`` keeps the account and gives the verdict, ``consumer.py`` is the MQTT
shell around them. The first two are pure: messages in, findings out. A cloud team needs the account, a decoder and about
thirty lines that receive messages; README.md says what the account relies on.
"""

from gateway.consume.account import DeviceVerdict, Verdict
from gateway.consume.consumer import ConsumeOptions, Consumer, consume

__all__ = ["ConsumeOptions", "Consumer", "DeviceVerdict", "Verdict", "consume"]
