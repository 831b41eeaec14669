"""The grammar that a chat's answer must follow, given as such or through ``response_format``."""

from .errors import bad_request
from .json_grammar import schema_grammar
from .json_rules import any_object_grammar
from .schema.chat_request import CreateChatCompletionRequest, JsonSchemaFormat, TextFormat

SCHEMA_PARAM = "response_format.json_schema.schema"


def grammar_of(body: CreateChatCompletionRequest) -> str | None:
    """GBNF, or None for free text."""
    form = body.response_format
    if form is None or isinstance(form, TextFormat):
        return body.grammar
    if body.grammar is not None:
        raise bad_request("grammar and response_format both shape the answer: send one", "grammar")
    if not isinstance(form, JsonSchemaFormat):
        return any_object_grammar()
    schema = form.json_schema.schema_
    return any_object_grammar() if schema is None else schema_grammar(schema, SCHEMA_PARAM)
