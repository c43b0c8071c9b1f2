-- additive: yes
-- Busy time in microseconds: in whole milliseconds per task, fast tasks took no time at all.

ALTER TABLE throughput ADD COLUMN busy_us bigint NOT NULL DEFAULT 0; -- worker time, see pulse-worker's `busy.rs`

-- The version before still writes `busy_ms`; what it wrote so far goes on to count, so that the total never falls.
UPDATE throughput SET busy_us = busy_ms * 1000;
