#!/usr/bin/env bash
# Uses the API: posts an event and a batch, waits until they are processed, lists them, and counts unprocessed events.
# Needs curl and jq. PULSE_TOKEN is a token with events:write and events:read (`pulse token issue --user you`),
# PULSE_URL the address of the API (http://localhost:8000).
set -euo pipefail
PULSE_URL=${PULSE_URL:-http://localhost:8000}
: "${PULSE_TOKEN:?set PULSE_TOKEN to a token of the API}"

# call STATUS METHOD PATH [BODY]: prints the response body; fails if the status differs.
call() {
    local expected=$1 method=$2 path=$3 answer status
    local options=(--silent --show-error --max-time 30 --request "$method")
    options+=(--header "Authorization: Bearer $PULSE_TOKEN")
    if [ $# -gt 3 ]; then
        # With a key, a retry after a lost response stores nothing twice.
        options+=(--header 'Content-Type: application/json' --header "Idempotency-Key: $RANDOM-$RANDOM-$$" --data "$4")
    fi
    answer=$(curl "${options[@]}" --write-out '\n%{http_code}' "$PULSE_URL$path")
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    if [ "$status" != "$expected" ]; then
        echo "error: $method $path answered $status, not $expected: $answer" >&2
        exit 1
    fi
    printf '%s\n' "$answer"
}

# expect DESCRIPTION FILTER JSON: fails unless the jq filter is true for the JSON.
expect() {
    if ! jq --exit-status "$2" >/dev/null <<<"$3"; then
        echo "error: expected $1: $3" >&2
        exit 1
    fi
}

session=usage-$RANDOM-$$

one=$(call 202 POST /api/v1/events "$(jq --null-input --arg session "$session" '{
    event_name: "page_view", event_type: "engagement", source: "web", session_id: $session,
    payload: {page: "/dashboard", duration: 45}
}')")
expect "an enqueued event" '.status == "enqueued" and .event_id > 0' "$one"
echo "posted event $(jq .event_id <<<"$one") as task $(jq --raw-output .task_id <<<"$one")"

batch=$(call 202 POST /api/v1/events/batch "$(jq --null-input --arg session "$session" '{
    events: [range(3) | {event_name: "click_\(.)", event_type: "interaction", session_id: $session, payload: {n: .}}]
}')")
expect "three ids" '.event_count == 3 and (.event_ids | length) == 3' "$batch"
echo "posted a batch of $(jq .event_count <<<"$batch") as task $(jq --raw-output .task_id <<<"$batch")"

for task in $(jq --raw-output .task_id <<<"$one") $(jq --raw-output .task_id <<<"$batch"); do
    for _ in $(seq 300); do
        state=$(call 200 GET "/api/v1/tasks/$task" | jq --raw-output .state)
        [ "$state" != completed ] || break
        sleep 0.1
    done
    if [ "$state" != completed ]; then
        echo "error: task $task is $state after 30 s: check that a worker is running" >&2
        exit 1
    fi
done
echo "both tasks are completed"

list=$(call 200 GET "/api/v1/events?session_id=$session&limit=10")
expect "four processed events, newest first" \
    '(.events | length) == 4 and all(.events[]; .processed) and .events[3].event_name == "page_view"' "$list"
jq --raw-output '.events[] | "  \(.id)  \(.event_name)  \(.processed_at)"' <<<"$list"

stats=$(call 200 GET /api/v1/events/status/unprocessed)
expect "counts" '.unprocessed_count >= 0 and .failed_count >= 0' "$stats"
echo "unprocessed: $(jq .unprocessed_count <<<"$stats"), failed: $(jq .failed_count <<<"$stats")"
