"""JSON schemas as GBNF grammars, so that an answer cannot be anything but JSON that follows its schema.

A grammar accepts some of what the schema does and nothing else: properties come in the schema's order, ones
that it does not name are left out, numbers have up to sixteen digits. (One liberty: ``oneOf`` is read as
``anyOf``.) A keyword that a grammar cannot express is refused, not ignored.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from ...runtime.gbnf import checked_grammar
from .errors import ApiError, bad_request
from .json_rules import FORMATS, grammar_text, literal

MAX_RULES = 2000
MAX_COUNT = 2000

_ANNOTATIONS = {
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "discriminator",
}
_KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "format"),
    "number": (),
    "integer": (),
    "boolean": (),
    "null": (),
}


def schema_grammar(schema: Mapping[str, Any], param: str) -> str:
    """The grammar of a schema. 400 names ``param`` and the place of what a grammar cannot express."""
    return checked_grammar(grammar_text(_Converter(schema, param).rules), param)


class _Converter:
    """Makes the rules of a schema. What a ``$ref`` points at is a rule of its own, and may contain itself."""

    def __init__(self, schema: Mapping[str, Any], param: str) -> None:
        self.rules: dict[str, str] = {"root": ""}
        self._schema = schema
        self._param = param
        self._names = {"#": "root"}
        self._pending: list[tuple[str, Any, str]] = [("root", schema, "schema")]
        while self._pending:
            name, target, where = self._pending.pop()
            self.rules[name] = self._visit(target, where)

    def _visit(self, schema: Any, where: str) -> str:
        """What the schema accepts, as the right-hand side of a rule."""
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise self._refused(where, f"{_short(schema)} is not a schema")
        if schema.keys() <= _ANNOTATIONS:
            return "value"
        whole = {
            "$ref": self._ref,
            "const": lambda value, _: literal(value),
            "enum": self._enum,
            "anyOf": self._any_of,
            "oneOf": self._any_of,
            "allOf": self._all_of,
        }
        for keyword, visit in whole.items():
            if keyword in schema:
                self._allow(schema, (keyword, "type") if keyword in ("const", "enum") else (keyword,), where)
                return visit(schema[keyword], f"{where}.{keyword}")
        return self._typed(schema, where)

    def _typed(self, schema: dict[str, Any], where: str) -> str:
        if "type" not in schema and _implied_type(schema) is None:
            self._allow(schema, (), where)
        given: Any = schema.get("type", _implied_type(schema))
        kinds: list[Any] = given if isinstance(given, list) and given else [given]
        for kind in kinds:
            if not isinstance(kind, str) or kind not in _KEYWORDS:
                raise self._refused(where, f"the type {_short(kind)} is not known")
        self._allow(schema, ("type", *(keyword for kind in kinds for keyword in _KEYWORDS[kind])), where)
        visits = {"object": self._object, "array": self._array, "string": self._string}
        return _either(visits[kind](schema, where) if kind in visits else kind for kind in kinds)

    def _object(self, schema: dict[str, Any], where: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", True)
        if not isinstance(properties, dict) or not _is_texts(required):
            raise self._refused(where, "properties must be an object, and required a list of names")
        properties = {**properties, **{name: others for name in required if name not in properties}}
        if properties:
            members = [(self._member(name, schema, where), name in required) for name, schema in properties.items()]
            return f'"{{" ws {self._members(members)} ws "}}"'
        if others is False:
            return '"{" ws "}"'
        member = self._rule(f'string ":" ws {self._visit(others, f"{where}.additionalProperties")}')
        return f'"{{" ws ({member} ("," ws {member})* ws)? "}}"'

    def _member(self, name: str, schema: Any, where: str) -> str:
        value = self._rule(self._visit(schema, f"{where}.properties.{name}"))
        return f'{literal(name)} ":" ws {value}'

    def _members(self, members: list[tuple[str, bool]]) -> str:
        """The members in order, made from the last to the first: a comma depends on what came before."""
        first, rest = '""', ""
        for member, is_required in reversed(members):
            start = f"{member} {rest}"
            first = self._rule(start if is_required else f"{start} | {first}")
            rest = self._rule(f'"," ws {member} {rest}' if is_required else f'("," ws {member})? {rest}')
        return first

    def _array(self, schema: dict[str, Any], where: str) -> str:
        least, most = self._range(schema, "minItems", "maxItems", where)
        if most == 0:
            return '"[" ws "]"'
        item = self._rule(self._visit(schema.get("items", True), f"{where}.items"))
        further = f'("," ws {item}){_repeat(max(0, least - 1), None if most is None else most - 1)}'
        return f'"[" ws {item} {further} ws "]"' if least else f'"[" ws ({item} {further} ws)? "]"'

    def _string(self, schema: dict[str, Any], where: str) -> str:
        least, most = self._range(schema, "minLength", "maxLength", where)
        if "format" not in schema:
            return f'"\\"" char{_repeat(least, most)} "\\""'
        if str(schema["format"]) not in FORMATS or least or most is not None:
            known = ", ".join(FORMATS)
            raise self._refused(
                f"{where}.format", f"{_short(schema['format'])} must be one of {known}, without lengths"
            )
        return f'"\\"" {FORMATS[schema["format"]]} "\\""'

    def _ref(self, ref: Any, where: str) -> str:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise self._refused(where, f"{_short(ref)} does not point into the schema itself")
        if ref not in self._names:
            self._names[ref] = self._rule("")
            self._pending.append((self._names[ref], self._target(ref, where), ref))
        return self._names[ref]

    def _target(self, ref: str, where: str) -> Any:
        target: Any = self._schema
        for step in unquote(ref).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or step not in target:
                raise self._refused(where, f"{_short(ref)} points at nothing")
            target = target[step]
        return target

    def _enum(self, values: Any, where: str) -> str:
        return _either(literal(value) for value in self._some(values, where))

    def _any_of(self, schemas: Any, where: str) -> str:
        return _either(self._visit(schema, f"{where}[{idx}]") for idx, schema in enumerate(self._some(schemas, where)))

    def _all_of(self, schemas: Any, where: str) -> str:
        if len(self._some(schemas, where)) > 1:
            raise self._refused(where, "only one schema can be followed at a time")
        return self._visit(schemas[0], f"{where}[0]")

    def _rule(self, body: str) -> str:
        if len(self.rules) >= MAX_RULES:
            raise bad_request(f"the schema needs more than {MAX_RULES} grammar rules", self._param)
        name = f"r{len(self.rules)}"
        self.rules[name] = body
        return name

    def _range(self, schema: dict[str, Any], low: str, high: str, where: str) -> tuple[int, int | None]:
        least, most = schema.get(low, 0), schema.get(high)
        for value in (least, 0 if most is None else most):
            if type(value) is not int or value < 0:
                raise self._refused(where, f"{low} and {high} must be whole numbers, not {_short(value)}")
            if value > MAX_COUNT:
                raise self._refused(where, f"{low} and {high} can be followed up to {MAX_COUNT}, not {value}")
        if most is not None and most < least:
            raise self._refused(where, f"{low} {least} is more than {high} {most}")
        return least, most

    def _some(self, values: Any, where: str) -> list[Any]:
        if not isinstance(values, list) or not values:
            raise self._refused(where, "must be a list that is not empty")
        return values

    def _allow(self, schema: dict[str, Any], keywords: Iterable[str], where: str) -> None:
        unknown = schema.keys() - _ANNOTATIONS - set(keywords)
        if unknown:
            raise self._refused(where, f"the keyword {_short(min(unknown))} is not supported here")

    def _refused(self, where: str, why: str) -> ApiError:
        return bad_request(f"{where[:200]}: {why}", self._param, "unsupported_schema")


def _implied_type(schema: Mapping[str, Any]) -> str | None:
    return next((kind for kind, words in _KEYWORDS.items() if any(word in schema for word in words)), None)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _either(alternatives: Iterable[str]) -> str:
    return f"({' | '.join(alternatives)})"


def _repeat(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
