-- enqueue_tied: new jobs of which some have a deadline, a parent or children.
--
-- Invariant: a job whose children are inserted with it is parked until the last of them has left `jobs`
-- (krilin.child_ended); a deadline is counted from the time for which the job was asked, by the database's clock.
-- Rides on nothing: rows with a unique key or an idempotency key go through enqueue_keyed.sql and tie.sql.
with clock as materialized (select krilin.now() as now)
insert into krilin.jobs
    (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, cause, trace_parent, awaited,
     concurrency_key, cost, created_at, parent_id, children_when, parked_reason, stop_at, stop_reason)
select
    i.id, i.user_id, i.app_id, i.kind, i.queue, i.args::jsonb,
    case when i.children_when is not null then 'parked' when due.at > clock.now then 'scheduled' else 'ready' end,
    i.priority, i.max_attempts, coalesce(due.at, clock.now), due.at, i.cause, i.trace_parent, i.awaited,
    i.concurrency_key, i.cost, clock.now, i.parent_id, i.children_when, case when i.children_when is not null then 'children' end,
    stop.at, case when stop.at is not null then 'deadline' end
from clock,
    unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::integer[],
           $9::timestamptz[], $10::interval[], $11::text[], $12::text[], $13::boolean[], $14::text[], $15::integer[],
           $16::uuid[], $17::text[],
           $18::timestamptz[], $19::interval[])
    as i(id, user_id, app_id, kind, queue, args, priority, max_attempts, run_at, delay, cause, trace_parent, awaited,
         concurrency_key, cost, parent_id, children_when, stop_at, stop_after),
    lateral (select coalesce(i.run_at, clock.now + i.delay) as at) as due,
    lateral (select coalesce(i.stop_at, coalesce(due.at, clock.now) + i.stop_after) as at) as stop
