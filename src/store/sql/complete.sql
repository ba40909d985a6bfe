-- complete: ends one job inside the caller's transaction.
--
-- Invariant: only under the job's present lease token; no row means that the job is somebody else's (or nobody's) by now,
-- and everything the caller did in this transaction must be rolled back. The same for a job that was cancelled meanwhile.
-- Rides on jobs_pkey.
with ending as (
    delete from krilin.jobs where id = $1 and lease_token = $2 and stop_reason is distinct from 'cancelled' returning *
)
insert into krilin.job_history
    (id, user_id, app_id, kind, queue, args, state, priority, attempt, max_attempts, run_at, due_at, worker_id,
     started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, result, created_at, finished_at)
select
    id, user_id, app_id, kind, queue, args, 'done', priority, attempt, max_attempts, run_at, due_at, worker_id,
    started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, $3::jsonb, created_at, krilin.now()
from ending
