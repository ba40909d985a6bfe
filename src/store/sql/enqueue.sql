-- enqueue: many new jobs in one insert.
--
-- Invariant: a row is `ready` when its time has come and `scheduled` when it has not, by the database's clock alone.
-- Rides on nothing: plain rows have neither unique key nor idempotency key (those go through enqueue_keyed.sql), and those
-- that are alike go through enqueue_alike.sql.
with clock as materialized (select krilin.now() as now)
insert into krilin.jobs
    (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, cause, trace_parent, awaited,
     concurrency_key, cost, created_at)
select
    i.id, i.user_id, i.app_id, i.kind, i.queue, i.args::jsonb,
    case when due.at > clock.now then 'scheduled' else 'ready' end,
    i.priority, i.max_attempts, coalesce(due.at, clock.now), due.at, i.cause, i.trace_parent, i.awaited,
    i.concurrency_key, i.cost, clock.now
from clock,
    unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::integer[],
           $9::timestamptz[], $10::interval[], $11::text[], $12::text[], $13::boolean[],
           $14::text[], $15::integer[])
    as i(id, user_id, app_id, kind, queue, args, priority, max_attempts, run_at, delay, cause, trace_parent, awaited,
         concurrency_key, cost),
    lateral (select coalesce(i.run_at, clock.now + i.delay) as at) as due
