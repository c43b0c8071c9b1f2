#!/usr/bin/env python3
"""Uses the API with requests, httpx and pydantic, as clients of the service built on FastAPI do.

Needs `pip install requests httpx pydantic`. PULSE_TOKEN is a token of the API, PULSE_URL its address
(http://localhost:8000). Prints each answer as a line of JSON; fails at the first unexpected one.
"""
import json
import os
import time
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import httpx
import requests
from pydantic import BaseModel

URL = os.environ.get("PULSE_URL", "http://localhost:8000") + "/api/v1/events"
HEADERS = {"Authorization": f"Bearer {os.environ['PULSE_TOKEN']}"}
SESSION = f"usage-{uuid.uuid4().hex}"
MOMENT = datetime(2025, 12, 18, 10, 30, 0, 123456, tzinfo=timezone.utc)


class Event(BaseModel):
    event_name: str
    event_type: str
    source: str | None = None
    session_id: str | None = None
    payload: dict[str, Any] = {}
    ip_address: str | None = None
    user_agent: str | None = None
    event_timestamp: datetime | None = None


class StoredEvent(Event):
    id: int
    user_id: int
    properties: dict[str, Any] | None
    event_timestamp: datetime
    created_at: datetime
    processed: bool
    processed_at: datetime | None
    processing_error: str | None

    def utc(self) -> datetime:
        """The event's time. The FastAPI service wrote UTC without an offset."""
        at = self.event_timestamp
        return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


class Accepted(BaseModel):
    event_id: int
    task_id: str
    status: Literal["enqueued"]
    message: str


class BatchAccepted(BaseModel):
    event_count: int
    event_ids: list[int]
    task_id: str
    status: Literal["enqueued"]
    message: str


http = requests.Session()
http.headers.update(HEADERS)
httpx_client = httpx.Client(headers=HEADERS, follow_redirects=True, timeout=30)


def answer(step: str, response: requests.Response | httpx.Response, *expected: int) -> Any:
    """Prints the answer of a step and returns its JSON."""
    body = response.json()
    kind = response.headers["content-type"].split(";")[0]
    print(json.dumps({"step": step, "status": response.status_code, "content_type": kind, "body": body}), flush=True)
    if response.status_code not in expected:
        raise SystemExit(f"error: {step}: the answer is {response.status_code}, not {expected}: {response.text}")
    return body


def post(step: str, event: dict[str, Any], *expected: int) -> Any:
    return answer(step, http.post(URL, json={"session_id": SESSION} | event, timeout=30), *expected or (202,))


def read_processed(step: str, event_id: int) -> StoredEvent:
    """Reads an event until it is processed."""
    for _ in range(300):
        response = http.get(f"{URL}/{event_id}", timeout=30)
        if response.status_code != 200 or response.json()["processed"]:
            return StoredEvent.model_validate(answer(step, response, 200))
        time.sleep(0.1)
    raise SystemExit(f"error: event {event_id} is not processed after 30 s: check that a worker is running")


def listed(step: str, response: requests.Response | httpx.Response) -> list[StoredEvent]:
    body = answer(step, response, 200)
    return [StoredEvent.model_validate(event) for event in (body if isinstance(body, list) else body["events"])]


def expect(what: str, actual: Any, expected: Any) -> None:
    if actual != expected:
        raise SystemExit(f"error: {what}: {actual!r}, not {expected!r}")


def events() -> None:
    """One event and a batch, with and without a slash at the end, read until they are processed."""
    example = {
        "event_name": "page_view", "event_type": "engagement", "source": "web", "ip_address": "192.168.1.1",
        "payload": {"page": "/dashboard", "duration": 45, "scroll_depth": 0.75, "tags": ["é", None, True], "big": 2**70},
        "user_agent": "Mozilla/5.0...",
    }
    one = Accepted.model_validate(post("post", example))
    stored = read_processed("read", one.event_id)
    expect("the stored event", stored.model_dump(include=set(example)), example)
    expect("the properties", (stored.properties or {})["original"], example["payload"])

    model = Event(event_name="sign_up", event_type="conversion", session_id=SESSION, event_timestamp=MOMENT)
    response = httpx_client.post(f"{URL}/", json=model.model_dump(mode="json"))
    two = Accepted.model_validate(answer("post a pydantic model to a path with a slash", response, 202))
    expect("the time", read_processed("read a pydantic model", two.event_id).utc(), MOMENT)

    items = [{"event_name": f"click_{n}", "event_type": "interaction", "session_id": SESSION} for n in range(3)]
    response = http.post(f"{URL}/batch", json={"events": items}, timeout=30)
    batch = BatchAccepted.model_validate(answer("post a batch", response, 202))
    expect("the ids of the batch", (batch.event_count, len(batch.event_ids)), (3, 3))
    for n, event_id in enumerate(batch.event_ids):
        expect("the order of the batch", read_processed("read an event of a batch", event_id).event_name, f"click_{n}")
    response = httpx_client.post(f"{URL}/batch/", json={"events": items})
    batch = BatchAccepted.model_validate(answer("post a batch to a path with a slash", response, 202))
    read_processed("read the last event", batch.event_ids[-1])
    httpx_client.get(f"{URL}/{one.event_id}/").raise_for_status()


def times() -> None:
    """Times as Python, JavaScript and databases write them."""
    second, minute = MOMENT.replace(microsecond=0), MOMENT.replace(second=0, microsecond=0)
    day = MOMENT.replace(hour=0, minute=0, second=0, microsecond=0)
    east = timezone(timedelta(hours=2))
    for form, value, expected in [
        ("str of a datetime", str(MOMENT), MOMENT),
        ("str of a datetime without an offset", str(MOMENT.replace(tzinfo=None)), MOMENT),
        ("str of a datetime with another offset", str(MOMENT.astimezone(east)), MOMENT),
        ("isoformat", MOMENT.isoformat(), MOMENT),
        ("isoformat without an offset", MOMENT.replace(tzinfo=None).isoformat(), MOMENT),
        ("strftime", second.strftime("%Y-%m-%dT%H:%M:%S%z"), second),
        ("nanoseconds", "2025-12-18T10:30:00.123456789Z", MOMENT),
        ("minutes", minute.strftime("%Y-%m-%dT%H:%M"), minute),
        ("date", str(MOMENT.date()), day),
        ("timestamp", MOMENT.timestamp(), MOMENT),
        ("timestamp as text", str(int(MOMENT.timestamp())), second),
        ("Date.now() of JavaScript", int(second.timestamp()) * 1000, second),
        ("before 1970", "1969-07-20 20:17:40", datetime(1969, 7, 20, 20, 17, 40, tzinfo=timezone.utc)),
    ]:
        event = {"event_name": "time", "event_type": "time", "event_timestamp": value}
        accepted = Accepted.model_validate(post(f"post a time: {form}", event))
        expect(form, read_processed(f"read a time: {form}", accepted.event_id).utc(), expected)


def lists() -> None:
    """Pages and filters, with booleans as requests and httpx write them."""
    mine = {"session_id": SESSION}
    for client, get in [("requests", lambda **more: http.get(timeout=30, **more)), ("httpx", httpx_client.get)]:
        page = listed(f"list with {client}", get(url=URL, params=mine | {"limit": 2, "offset": 1}))
        everything = listed(f"list everything with {client}", get(url=URL, params=mine | {"limit": 100}))
        expect("the page", [event.id for event in page], [event.id for event in everything[1:3]])
        processed = mine | {"processed": True, "event_type": "interaction"}
        expect("processed", len(listed(f"list processed with {client}", get(url=f"{URL}/", params=processed))), 6)
        unprocessed = mine | {"processed": False, "source": "web"}
        expect("unprocessed", listed(f"list unprocessed with {client}", get(url=URL, params=unprocessed)), [])
    counts = answer("count unprocessed", http.get(f"{URL}/status/unprocessed", timeout=30), 200)
    expect("the number of unprocessed events", counts["unprocessed_count"], 0)


def odd_values() -> None:
    """Values that are accepted although they are odd, and values that one of the services refuses."""
    event = {"event_name": "odd", "event_type": "odd"}
    for address in ["", "1.2.3.4:5678", "[::1]", "1.2.3.4, 5.6.7.8", "unknown"]:
        accepted = post(f"post an odd address: {address!r}", event | {"ip_address": address})
        read_processed("read an odd address", accepted["event_id"])
    post("post an unknown field", event | {"colour": "red"})
    post("post an empty time", event | {"event_timestamp": ""}, 202, 422)
    post("post a payload that is null", event | {"payload": None}, 202, 422)
    post("post an event of 40 kB", event | {"payload": {"text": "x" * 40_000}}, 202, 413)


def errors() -> None:
    """Errors have a status and a `detail`."""
    event = {"event_name": "x", "event_type": "y"}
    for what, body in [
        ("without a type", {"event_name": "x"}),
        ("with an empty name", event | {"event_name": ""}),
        ("with a long name", event | {"event_name": "x" * 256}),
        ("with a name that is a number", event | {"event_name": 1}),
        ("with a payload that is a list", event | {"payload": []}),
        ("with a time that is none", event | {"event_timestamp": "yesterday"}),
    ]:
        expect("an error", "detail" in post(f"post an event {what}", body, 422), True)
    for size in [0, 101]:
        response = http.post(f"{URL}/batch", json={"events": [event] * size}, timeout=30)
        answer(f"post a batch of {size}", response, 422)
    answer("list with a limit that is none", http.get(URL, params={"limit": "many"}, timeout=30), 422)
    answer("list with a boolean that is none", http.get(URL, params={"processed": "maybe"}, timeout=30), 422)
    answer("read an id that is none", http.get(f"{URL}/abc", timeout=30), 422)
    answer("read an unknown id", http.get(f"{URL}/999999999", timeout=30), 404)
    answer("post without a token", requests.post(URL, json=event, timeout=30), 401)
    answer("list with a wrong token", requests.get(URL, headers={"Authorization": "Bearer x"}, timeout=30), 401)
    answer("use a wrong method", http.delete(URL, timeout=30), 405)


for part in [events, times, lists, odd_values, errors]:
    part()
