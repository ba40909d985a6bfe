-- redrive: takes dead letters up again, oldest first, at most $6 of them.
--
-- Invariants: a job keeps its id, gets all its attempts before it, and leaves the history in the same statement; of two
-- callers at once each takes other rows (skip locked), so none is redriven twice. What it had died of stays in `redrives`.
-- A job whose unique key another one has by now is left where it is.
-- Rides on job_history_dead_idx and job_history_id_idx.
with clock as materialized (select krilin.now() as now),
locked as materialized (
    select h.id, h.finished_at, h.unique_key
    from krilin.job_history h
    where h.state = 'dead' and h.finished_at >= $1
        and ($2::uuid is null or h.user_id = $2)
        and ($3::text is null or h.kind = $3)
        and ($4::text is null or h.app_id = $4)
        and ($5::text is null or h.error ->> 'code' = $5)
        and (h.unique_key is null or not exists (select from krilin.jobs j where j.unique_key = h.unique_key))
    order by h.finished_at
    limit $6
    for update of h skip locked
),
-- Of several that had the same unique key, the latest.
chosen as materialized (
    select id, finished_at,
        unique_key is null or row_number() over (partition by unique_key order by finished_at desc) = 1 as wanted
    from locked
),
again as (
    delete from krilin.job_history h
    using chosen c
    where c.wanted and h.id = c.id and h.finished_at = c.finished_at
    returning h.*
),
kept as (
    insert into krilin.redrives (job_id, dead_since, attempt, error, redriven_at, redriven_by)
    select id, finished_at, attempt, error, clock.now, $7 from again, clock
)
insert into krilin.jobs
    (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, unique_key, concurrency_key,
     cost, parent_id, cause, trace_parent, last_error, created_at)
select id, user_id, app_id, kind, queue, args, 'ready', priority, max_attempts, clock.now, due_at, unique_key,
    concurrency_key, (select nullif(k.cost, 1) from krilin.kinds k where k.kind = again.kind), parent_id, cause, trace_parent,
    error, created_at
from again, clock
returning id, queue
