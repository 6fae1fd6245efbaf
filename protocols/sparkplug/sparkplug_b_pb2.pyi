"""What Holdfast uses of the generated module, typed by hand: the generated stub is neither strict nor readable."""

from collections.abc import Iterator, MutableSequence
from typing import Generic, TypeVar

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

DESCRIPTOR: FileDescriptor

_T = TypeVar("_T")

class _Repeated(Generic[_T]):
    def add(self) -> _T: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_T]: ...
    def __getitem__(self, at: int) -> _T: ...

class Payload(Message):
    class PropertyValue(Message):
        type: int
        is_null: bool
        int_value: int
        long_value: int
        float_value: float
        double_value: float
        boolean_value: bool
        string_value: str

    class PropertySet(Message):
        @property
        def keys(self) -> MutableSequence[str]: ...
        @property
        def values(self) -> _Repeated[Payload.PropertyValue]: ...

    class Metric(Message):
        name: str
        alias: int
        timestamp: int
        datatype: int
        is_historical: bool
        is_transient: bool
        is_null: bool
        @property
        def properties(self) -> Payload.PropertySet: ...
        int_value: int
        long_value: int
        float_value: float
        double_value: float
        boolean_value: bool
        string_value: str
        bytes_value: bytes

    timestamp: int
    @property
    def metrics(self) -> _Repeated[Payload.Metric]: ...
    seq: int
    uuid: str
    body: bytes
