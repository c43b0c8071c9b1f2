"""The service that PulseBoard Ingest replaces, as its clients see it: FastAPI, pydantic, and a list for the tables.

Written from the document of that service alone. Where the document is silent, this is what FastAPI does by default.
JWT_SECRET is the secret of the HS256 tokens; `sub` is the number of the user.
"""
import datetime as dt
import os
import uuid
from typing import Annotated, Any

import jwt
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

app = FastAPI()
stored: list["Event"] = []


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def authenticated(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> int:
    try:
        return int(jwt.decode(credentials.credentials, os.environ["JWT_SECRET"], algorithms=["HS256"])["sub"])
    except (jwt.InvalidTokenError, ValueError):
        raise HTTPException(401, "Invalid token")


User = Annotated[int, Depends(authenticated)]


class EventIn(BaseModel):
    event_name: str = Field(min_length=1, max_length=255)
    event_type: str = Field(min_length=1, max_length=100)
    source: str | None = Field(None, max_length=100)
    session_id: str | None = Field(None, max_length=255)
    payload: dict[str, Any] = {}
    ip_address: str | None = Field(None, max_length=45)
    user_agent: str | None = None
    event_timestamp: dt.datetime | None = None


class BatchIn(BaseModel):
    events: list[EventIn] = Field(min_length=1, max_length=100)


class Event(EventIn):
    id: int
    user_id: int
    properties: dict[str, Any] | None = None
    event_timestamp: dt.datetime
    created_at: dt.datetime
    processed: bool = False
    processed_at: dt.datetime | None = None
    processing_error: str | None = None


def store(user: int, posted: EventIn) -> Event:
    """Stores an event. The columns have the type TIMESTAMP: times are UTC, without an offset."""
    at = posted.event_timestamp or utc_now()
    fields = posted.model_dump() | {
        "event_timestamp": at.astimezone(dt.UTC).replace(tzinfo=None) if at.tzinfo else at
    }
    event = Event(id=len(stored) + 1, user_id=user, created_at=utc_now(), **fields)
    stored.append(event)
    return event


def process(events: list[Event]) -> None:
    for event in events:
        event.properties = {"original": event.payload, "timestamp": event.event_timestamp.isoformat()}
        event.processed, event.processed_at = True, utc_now()


@app.post("/api/v1/events", status_code=202)
def submit(posted: EventIn, user: User, tasks: BackgroundTasks):
    event = store(user, posted)
    tasks.add_task(process, [event])
    return {"event_id": event.id, "task_id": str(uuid.uuid4()), "status": "enqueued",
            "message": "Event enqueued for processing"}


@app.post("/api/v1/events/batch", status_code=202)
def submit_batch(batch: BatchIn, user: User, tasks: BackgroundTasks):
    events = [store(user, posted) for posted in batch.events]
    tasks.add_task(process, events)
    return {"event_count": len(events), "event_ids": [event.id for event in events], "task_id": str(uuid.uuid4()),
            "status": "enqueued", "message": f"Batch of {len(events)} events enqueued for processing"}


@app.get("/api/v1/events")
def list_events(
    user: User,
    event_name: str | None = None,
    event_type: str | None = None,
    source: str | None = None,
    session_id: str | None = None,
    processed: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[Event]:
    filters = {"event_name": event_name, "event_type": event_type, "source": source, "session_id": session_id,
               "processed": processed}
    filters = {name: value for name, value in filters.items() if value is not None}
    found = [event for event in reversed(stored) if event.user_id == user
             and all(getattr(event, name) == value for name, value in filters.items())]
    return found[offset:offset + limit]


@app.get("/api/v1/events/status/unprocessed")
def count_unprocessed(user: User):
    return {"unprocessed_count": sum(event.user_id == user and not event.processed for event in stored)}


@app.get("/api/v1/events/{id}")
def get_event(id: int, user: User) -> Event:
    for event in stored:
        if (event.id, event.user_id) == (id, user):
            return event
    raise HTTPException(404, "Event not found")
