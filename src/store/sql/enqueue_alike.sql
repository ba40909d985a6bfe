-- enqueue_alike: many new jobs that differ in nothing but their id and arguments, in one insert; one job alone is such.
--
-- Invariant and indexes are those of enqueue.sql. To unnest a list costs something even when it has one entry.
with clock as materialized (select krilin.now() as now)
insert into krilin.jobs
    (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, cause, trace_parent, awaited,
     concurrency_key, cost, created_at)
select
    i.id, $3, $4, $5, $6, i.args::jsonb, case when due.at > clock.now then 'scheduled' else 'ready' end,
    $7, $8, coalesce(due.at, clock.now), due.at, $11, $12, $13, $14, $15, clock.now
from clock, unnest($1::uuid[], $2::text[]) as i(id, args),
    lateral (select coalesce($9::timestamptz, clock.now + $10::interval) as at) as due
