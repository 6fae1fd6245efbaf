"""What a query may cost, judged before anything of it is carried out. Pure.

The cost of a query is the number of fields that it can bring: each list counts as often as its ``limit`` says, and lists in lists
multiply. A fragment counts wherever it is used, one that uses itself is refused, and nothing is walked twice: what a fragment
costs is found once. Introspection is judged by the rules of GraphQL's own validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    parse,
)
from graphql.error import GraphQLSyntaxError

from gateway.objections import TooLarge, Unfit

MOST_TOKENS: Final = 2000
MOST_DEPTH: Final = 8
MOST_COST: Final = 5000
MOST_ALIASES: Final = 30
MOST_ROOT_FIELDS: Final = 20
MOST_OPERATIONS: Final = 10
MOST_FRAGMENTS: Final = 50
MOST_NESTED: Final = 60
"""Brackets within brackets: whoever reads them calls itself."""
LIMIT: Final = "limit"
USUAL_LIMIT: Final = 20
MOST_LIMIT: Final = 100
LISTS: Final = frozenset({"connections", "devices", "values", "tagList", "commands", "uplinks", "history"})
"""Fields that give a page."""
ADVICE: Final = "ask for less at a time, page by page"


@dataclass(frozen=True, slots=True)
class Cost:
    fields: int = 0
    depth: int = 0
    aliases: int = 0

    def beside(self, other: Cost) -> Cost:
        return Cost(self.fields + other.fields, max(self.depth, other.depth), self.aliases + other.aliases)


def judged(query: str, variables: Mapping[str, Any], operation: str | None) -> DocumentNode:  # Any: JSON
    """The document of ``query``. Raises Unfit for what is no query, TooLarge for one that would cost too much."""
    document = _parsed(query)
    _must_be_read_only(document)
    _Judge(document, variables).judge(_chosen(document, operation))
    return document


def _parsed(query: str) -> DocumentNode:
    nested = deepest = 0
    for letter in query:
        nested += (letter in "{[(") - (letter in "}])")
        deepest = max(deepest, nested)
    if deepest > MOST_NESTED:
        raise TooLarge(f"the query has brackets within brackets, {deepest} deep; {MOST_NESTED} is the most", ADVICE)
    try:
        return parse(query, no_location=False, max_tokens=MOST_TOKENS)
    except GraphQLSyntaxError as error:
        if f"more than {MOST_TOKENS} tokens" in error.message:
            raise TooLarge(f"the query has more than {MOST_TOKENS} words", ADVICE) from None
        raise Unfit(f"this is no GraphQL: {error.message}", "see GET /api/v1/openapi.json, ask_graphql") from None


def _must_be_read_only(document: DocumentNode) -> None:
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    fragments = [each for each in document.definitions if isinstance(each, FragmentDefinitionNode)]
    if len(operations) > MOST_OPERATIONS or len(fragments) > MOST_FRAGMENTS:
        raise TooLarge(f"a document has at most {MOST_OPERATIONS} operations and {MOST_FRAGMENTS} fragments", ADVICE)
    if any(each.operation is not OperationType.QUERY for each in operations):
        raise Unfit("only queries can be asked here", "to write is a command: POST /api/v1/commands; to follow is GET /api/v1/live")


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """The operation that is asked for (GraphQL, 6.1). Raises Unfit."""
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    found = [each for each in operations if name is None or (each.name is not None and each.name.value == name)]
    if len(found) != 1:
        raise Unfit(f"the document has {len(found)} operations to choose from", "name one of them in operationName")
    return found[0]


class _Judge:
    def __init__(self, document: DocumentNode, variables: Mapping[str, Any]) -> None:  # Any: JSON
        self._fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
        self._variables = variables
        self._defaults: dict[str, int] = {}
        self._known: dict[str, Cost | None] = {}
        """What each fragment costs; None while it is being found."""

    def judge(self, operation: OperationDefinitionNode) -> None:
        """Raises TooLarge, Unfit."""
        self._defaults = {
            each.variable.name.value: int(each.default_value.value)
            for each in operation.variable_definitions or ()
            if isinstance(each.default_value, IntValueNode)
        }
        self._known = {}
        cost = self._of(operation.selection_set)
        for what, found, most in (
            ("is {} levels deep", cost.depth, MOST_DEPTH),
            ("could bring {} fields", cost.fields, MOST_COST),
            ("has {} aliases", cost.aliases, MOST_ALIASES),
            ("has {} fields at its root", len(operation.selection_set.selections), MOST_ROOT_FIELDS),
        ):
            if found > most:
                raise TooLarge(f"the query {what.format(found)}; {most} is the most", ADVICE)

    def _of(self, selections: SelectionSetNode | None) -> Cost:
        cost = Cost()
        for each in selections.selections if selections else ():
            if isinstance(each, FieldNode):
                cost = cost.beside(self._field(each))
            elif isinstance(each, InlineFragmentNode):
                cost = cost.beside(self._of(each.selection_set))
            elif isinstance(each, FragmentSpreadNode):
                cost = cost.beside(self._fragment(each.name.value))
        return cost

    def _field(self, field: FieldNode) -> Cost:
        alias = int(field.alias is not None)
        if field.name.value.startswith("__"):
            return Cost(1, 1, alias)
        inner = self._of(field.selection_set)
        return Cost(1 + inner.fields * self._times(field), 1 + inner.depth, alias + inner.aliases)

    def _fragment(self, name: str) -> Cost:
        if name not in self._known:
            self._known[name] = None
            fragment = self._fragments.get(name)
            self._known[name] = self._of(fragment.selection_set) if fragment else Cost()
        found = self._known[name]
        if found is None:
            raise Unfit(f"fragment {name} uses itself", "take the circle out")
        return found

    def _times(self, field: FieldNode) -> int:
        """How many things a list brings: its ``limit``."""
        for argument in field.arguments or ():
            if argument.name.value == LIMIT:
                return _within(self._number(argument.value))
        return USUAL_LIMIT if field.name.value in LISTS else 1

    def _number(self, value: object) -> int:
        if isinstance(value, IntValueNode):
            return int(value.value) if len(value.value) < 10 else MOST_LIMIT + 1
        if isinstance(value, VariableNode):
            given = self._variables.get(value.name.value, self._defaults.get(value.name.value, USUAL_LIMIT))
            return given if isinstance(given, int) else MOST_LIMIT
        return MOST_LIMIT


def _within(limit: int) -> int:
    if not 1 <= limit <= MOST_LIMIT:
        raise TooLarge(f"limit is 1 to {MOST_LIMIT} here", ADVICE)
    return limit
