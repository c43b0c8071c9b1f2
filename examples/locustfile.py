"""Load for the API: 80 % single events, 15 % batches of 20, 5 % lists.

    pip install locust
    PULSE_TOKEN=$(pulse token issue --user load) locust -f examples/locustfile.py --host http://localhost:8000
"""

import os
import random
import uuid

from locust import FastHttpUser, between, task

PULSE_TOKEN = os.environ["PULSE_TOKEN"]
PAGES = ["/", "/dashboard", "/pricing", "/settings"]


def event():
    return {
        "event_name": "page_view",
        "event_type": random.choice(["engagement", "interaction"]),
        "source": "locust",
        "session_id": f"sess_{random.randrange(1000)}",
        "payload": {"page": random.choice(PAGES), "duration": random.randrange(300)},
    }


class Visitor(FastHttpUser):
    wait_time = between(0.01, 0.1)

    def call(self, method, path, expected, name, **options):
        headers = {"Authorization": f"Bearer {PULSE_TOKEN}"}
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        with self.client.request(
            method, path, name=name, headers=headers, catch_response=True, **options
        ) as response:
            if response.status_code == expected:
                response.success()
            else:
                response.failure(f"{response.status_code}: {response.text}")

    @task(80)
    def single(self):
        self.call("POST", "/api/v1/events", 202, "single", json=event())

    @task(15)
    def batch(self):
        body = {"events": [event() for _ in range(20)]}
        self.call("POST", "/api/v1/events/batch", 202, "batch", json=body)

    @task(5)
    def list(self):
        self.call("GET", "/api/v1/events?limit=50", 200, "list")
