"""A test in Python: what the app writes reaches a browser."""

import json
import os
import urllib.request

import pytest
import redis


@pytest.fixture
def db():
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
    client.flushdb()
    return client


def test_what_is_written_is_shown(keyrelay, db):
    with urllib.request.urlopen(f"{keyrelay}/events?channel=room:lobby", timeout=10) as stream:
        while not stream.readline().startswith(b"event: keyrelay.ready"):
            pass
        db.set("message:lobby:1", "hello")
        while not (line := stream.readline()).startswith(b'data: {"channel":"room:lobby"'):
            pass
    message = json.loads(line.removeprefix(b"data: "))
    assert (message["key"], message["value"]) == ("message:lobby:1", "hello")
