-- copy: many new jobs at once.
--
-- Invariant: that of enqueue.sql; the state was decided by the database's clock, which was asked just before.
-- Rides on nothing. A `copy` fills whole pages and writes each to Postgres' log at once, where an insert does so row by row.
copy krilin.jobs
    (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, cause, trace_parent, awaited,
     concurrency_key, cost, created_at)
from stdin (format binary)
