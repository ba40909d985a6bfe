-- enqueue_keyed: one new job that has a unique key, an idempotency key or both.
--
-- Invariant: the idempotency record and the job it names commit together. Gives no row when either key is taken.
-- Rides on idempotency_keys_unique and jobs_unique_key.
with clock as materialized (select krilin.now() as now),
kept as (
    insert into krilin.idempotency_keys (user_id, key, request_hash, job_id, created_at)
    select $2, $14, $15, $1, clock.now from clock where $14::text is not null
    on conflict do nothing
    returning job_id
)
insert into krilin.jobs
    (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, cause, trace_parent,
     awaited, unique_key, created_at)
select
    $1, $2, $3, $4, $5, $6::jsonb,
    case when $9::timestamptz > clock.now then 'scheduled' else 'ready' end,
    $7, $8, coalesce($9, clock.now), $9, $10, $11, $12, $13, clock.now
from clock
where $14::text is null or exists (select from kept)
on conflict (unique_key) where unique_key is not null do nothing
returning id
