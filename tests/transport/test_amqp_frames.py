"""Frames, with the client library as the judge of what is right."""

import pika.data
import pika.frame
import pika.spec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import TransportError
from msgflo.transport.amqp_frames import (
    acknowledgement,
    destination,
    publication,
    read_content,
    write_content,
)
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
HEADERS = st.dictionaries(
    NAME | st.sampled_from([CONTENT_TYPE, MESSAGE_ID]), TEXT, max_size=6
).filter(lambda headers: not any(name.startswith("x-") for name in headers))


def frames_of(data: bytes) -> list:
    found = []
    while data:
        size, frame = pika.frame.decode_frame(data)
        assert size, "a frame that is cut short"
        found.append(frame)
        data = data[size:]
    return found


@given(HEADERS, st.floats(0, 2e9), st.booleans(), st.booleans())
def test_content_is_read_as_it_was_written(headers, sent, ours, lasting):
    block = write_content(7, headers, sent, ours=ours, lasting=lasting)
    found = read_content(block, pika.data.decode_table)
    assert found.headers == headers
    assert found.sent == int(sent)
    assert found.ours is ours
    if ours or 0 < len(headers.get(MESSAGE_ID, "").encode()) < 256:
        assert found.id == headers.get(MESSAGE_ID, "")


@given(HEADERS, st.floats(0, 2e9), st.booleans(), st.sampled_from([0.0, 1.5]), st.just("answers"))
def test_the_library_reads_our_content(headers, sent, ours, expires, reply_to):
    block = write_content(7, headers, sent, ours=ours, expires=expires, reply_to=reply_to)
    properties = pika.spec.BasicProperties()
    properties.decode(block[12:])
    said = dict(properties.headers or {})
    if properties.content_type is not None:
        said[CONTENT_TYPE] = properties.content_type
    if properties.message_id is not None:
        said[MESSAGE_ID] = properties.message_id
    assert said == headers
    assert properties.timestamp == int(sent)
    assert properties.app_id == ("msgflo" if ours else None)
    assert properties.delivery_mode == 2
    assert properties.reply_to == reply_to
    assert properties.expiration == ("1500" if expires else None)


def test_we_read_what_others_write():
    properties = pika.spec.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={
            "text": "ä",
            "number": 7,
            "yes": True,
            "none": None,
            "data": b"\xff",
            "table": {"a": 1},
            "x-mine": "kept",
            "x-delivery-count": 3,
            "x-death": [{"reason": "rejected", "queue": "Q", "count": 1}],
            "x-first-death-queue": "Q",
        },
        delivery_mode=1,
        priority=4,
        correlation_id="c",
        reply_to="r",
        expiration="1000",
        message_id="i",
        timestamp=1_700_000_000,
        type="t",
        user_id="guest",
        app_id="other",
        cluster_id="z",
    )
    block = pika.frame.Header(1, 5, properties).marshal()[7:-1]
    found = read_content(block, pika.data.decode_table)
    assert found.headers == {
        CONTENT_TYPE: "text/plain",
        MESSAGE_ID: "i",
        "text": "ä",
        "number": "7",
        "yes": "true",
        "data": "\ufffd",
        "x-mine": "kept",
    }
    assert (found.id, found.ours, found.sent, found.reply_to) == ("i", False, 1.7e9, "r")
    assert found.delivered == 3
    assert found.death[0]["reason"] == "rejected"


def test_we_read_a_message_without_anything():
    block = pika.frame.Header(1, 5, pika.spec.BasicProperties()).marshal()[7:-1]
    found = read_content(block, pika.data.decode_table)
    assert (found.headers, found.id, found.ours, found.sent) == ({}, "", False, 0.0)


def test_a_name_that_is_too_long_for_a_header_is_refused():
    with pytest.raises(TransportError, match="has 300 bytes, and may have 255"):
        write_content(0, {"x" * 300: ""}, 0.0)


@given(st.binary(max_size=100), st.integers(9, 40), NAME, NAME, st.booleans())
def test_the_library_reads_our_publications(body, most, exchange, key, mandatory):
    where = destination(exchange, key, mandatory=mandatory)
    content = write_content(len(body), {}, 0.0)
    method, header, *pieces = frames_of(publication(7, where, content, body, most))
    assert {frame.channel_number for frame in (method, header, *pieces)} == {7}
    assert isinstance(method.method, pika.spec.Basic.Publish)
    assert (method.method.exchange, method.method.routing_key) == (exchange, key)
    assert method.method.mandatory is mandatory
    assert header.body_size == len(body)
    assert b"".join(piece.fragment for piece in pieces) == body
    assert all(len(piece.marshal()) <= most for piece in pieces)


@given(st.integers(1, 2**63), st.booleans())
def test_the_library_reads_our_settlements(tag, multiple):
    (frame,) = frames_of(acknowledgement(3, tag, multiple=multiple))
    assert isinstance(frame.method, pika.spec.Basic.Ack)
    assert (frame.method.delivery_tag, frame.method.multiple) == (tag, multiple)
