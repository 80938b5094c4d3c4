"""JSON-RPC as text: what is a request, what is refused and how, and that ids come back as sent."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.server.json_rpc import (
    MOST_IN_A_BATCH,
    MOST_LEVELS,
    Message,
    Refused,
    Request,
    answer,
    batch,
    failure,
    key_of,
    parse,
)
from persona_mcp.server.wire import WIRES
from persona_mcp.state.errors import NotFound

MOST = 1 << 20
IDS = st.one_of(
    st.none(), st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def read(value: Any) -> Message:
    return parse(json.dumps(value), MOST)


def one(value: Any) -> Request | Refused:
    message = read(value)
    assert not message.is_batch
    [entry] = message.entries
    return entry


def call(**more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "persona.list", **more}


@given(id=IDS)
def test_an_id_comes_back_with_its_type_and_value(id: Any) -> None:
    entry = one(call(id=id))

    assert isinstance(entry, Request)
    told = json.loads(answer(entry.id, both=False, result={}))
    assert (type(told["id"]), told["id"]) == (type(id), id)
    assert not entry.notification


@given(one=IDS, other=IDS)
def test_ids_are_one_only_if_they_are_the_same_json(one: Any, other: Any) -> None:
    assert (key_of(one) == key_of(other)) == (json.dumps(one) == json.dumps(other))


@given(value=JSON)
def test_anything_that_is_json_is_a_request_or_is_refused_with_a_code(value: Any) -> None:
    for entry in read(value).entries:
        if isinstance(entry, Refused):
            told = json.loads(failure(entry.id, entry.error, both=False))
            assert told["error"]["code"] in (-32600, -32602)


@given(text=st.text())
def test_any_text_at_all_can_be_read(text: str) -> None:
    assert parse(text, MOST).entries


@given(params=st.dictionaries(st.text(), JSON), ids=st.lists(IDS, min_size=1, max_size=50))
def test_a_batch_is_its_members_in_their_order(params: dict[str, Any], ids: list[Any]) -> None:
    message = read([call(id=id, params=params) for id in ids])

    assert message.is_batch
    assert [entry.id for entry in message.entries] == ids
    assert all(isinstance(e, Request) and e.params == params for e in message.entries)


def test_a_request_without_an_id_is_a_notification_and_one_with_null_is_none() -> None:
    silent, asking = one(call()), one(call(id=None))

    assert isinstance(silent, Request) and isinstance(asking, Request)
    assert (silent.notification, asking.notification) == (True, False)


@pytest.mark.parametrize("params", [None, {}])
def test_arguments_may_be_left_out(params: Any) -> None:
    entry = one(call(id=1, params=params))

    assert isinstance(entry, Request)
    assert entry.params == {}


@pytest.mark.parametrize(
    ("value", "code", "id", "field"),
    [
        (7, "invalid_request", None, "a request"),
        ("text", "invalid_request", None, "a request"),
        ({}, "invalid_request", None, "jsonrpc"),
        (call(id=True), "invalid_request", None, "id"),
        (call(id=[1]), "invalid_request", None, "id"),
        (call(id={"a": 1}), "invalid_request", None, "id"),
        ({"method": "persona.list", "id": 1}, "invalid_request", 1, "jsonrpc"),
        (call(jsonrpc="1.0", id=1), "invalid_request", 1, "jsonrpc"),
        (call(jsonrpc=2.0, id=1), "invalid_request", 1, "jsonrpc"),
        ({"jsonrpc": "2.0", "id": "a"}, "invalid_request", "a", "method"),
        (call(method=5, id="a"), "invalid_request", "a", "method"),
        (call(params=5, id="a"), "invalid_request", "a", "params"),
        (call(params="x"), "invalid_request", None, "params"),
        (call(params=["aria"], id="a"), "invalid_params", "a", "params"),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, "invalid_request", 1, "method"),
        ([], "invalid_request", None, "a batch"),
        ([call(id=1)] * (MOST_IN_A_BATCH + 1), "invalid_request", None, "a batch"),
    ],
)
def test_an_envelope_that_is_wrong_is_refused_and_told_what_is_allowed(
    value: Any, code: str, id: Any, field: str
) -> None:
    entry = one(value)

    assert isinstance(entry, Refused)
    assert not entry.notification
    told = json.loads(failure(entry.id, entry.error, both=False))
    assert (told["id"], told["error"]["code"]) == (id, WIRES[code].rpc)
    assert told["error"]["data"]["field"] == field


@pytest.mark.parametrize(
    ("frame", "given"),
    [({"id": 1}, "nothing"), ({"id": 1, "jsonrpc": None}, "null"), (call(method=5), "5")],
)
def test_what_is_not_there_is_told_from_null(frame: Any, given: str) -> None:
    entry = one(frame)

    assert isinstance(entry, Refused)
    assert entry.error.message.endswith(f"given was {given}")


def test_a_notification_with_arguments_by_place_is_not_answered() -> None:
    entry = one(call(params=[1]))

    assert isinstance(entry, Refused) and entry.notification


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{not JSON}",
        '{"jsonrpc": "2.0", "id": NaN, "method": "persona.list"}',
        '{"jsonrpc": "2.0", "id": 1, "params": {"limit": Infinity}, "method": "persona.list"}',
        '{"id": 1' + "0" * 5000 + "}",
        "[" * 100_000 + "]" * 100_000,
        "[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1),
    ],
)
def test_what_is_not_json_or_too_deep_is_refused(text: str) -> None:
    [entry] = parse(text, MOST).entries

    assert isinstance(entry, Refused)
    assert (entry.id, entry.error.code) == (None, "parse_error")


def test_a_number_of_too_many_digits_is_told_as_that() -> None:
    [entry] = parse('{"id": 1' + "0" * 5000 + "}", MOST).entries

    assert isinstance(entry, Refused)
    assert "a number: allowed are 4300 digits" in entry.error.message


def test_a_number_that_json_cannot_write_is_no_id() -> None:
    [entry] = parse('{"jsonrpc": "2.0", "id": 1e999, "method": "persona.list"}', MOST).entries

    assert isinstance(entry, Refused)
    assert (entry.id, entry.error.data["field"]) == (None, "id")


def test_levels_up_to_the_limit_are_read() -> None:
    deep: Any = {}
    for _ in range(MOST_LEVELS - 2):
        deep = {"a": deep}

    assert isinstance(one(call(id=1, params=deep)), Request)


@pytest.mark.parametrize("filling", ["x", "é", "𝄞"])
def test_the_length_of_a_frame_is_that_of_its_bytes(filling: str) -> None:
    text = json.dumps(call(id=1, params={"query": filling * 100}), ensure_ascii=False)
    size = len(text.encode())

    [fits], [beyond] = parse(text, size).entries, parse(text, size - 1).entries

    assert isinstance(fits, Request)
    assert isinstance(beyond, Refused) and beyond.error.code == "parse_error"


def test_a_bad_member_of_a_batch_is_refused_alone() -> None:
    first, second, third = read([call(id=1), 5, call(id=3)]).entries

    assert isinstance(first, Request) and isinstance(third, Request)
    assert isinstance(second, Refused) and second.id is None


def test_an_answer_has_a_result_or_an_error_and_for_old_clients_both_keys() -> None:
    error = NotFound.of("persona", "abc")

    assert set(json.loads(answer(1, both=False, result={}))) == {"jsonrpc", "id", "result"}
    assert set(json.loads(failure(1, error, both=False))) == {"jsonrpc", "id", "error"}
    old = json.loads(answer(1, both=True, result={"a": 1}))
    assert (old["result"], old["error"]) == ({"a": 1}, None)
    failed = json.loads(failure(1, error, both=True))
    assert failed["result"] is None
    assert failed["error"]["code"] == -32000


def test_half_a_character_can_be_sent_back() -> None:
    entry = one(call(id="\ud800"))

    assert answer(entry.id, both=False, result=None).isascii()


def test_answers_to_a_batch_are_one_array() -> None:
    told = json.loads(batch([answer(1, both=False, result=1), answer("2", both=False, result=2)]))

    assert [one["id"] for one in told] == [1, "2"]
