-- enqueue: many new jobs in one insert.
--
-- Invariant: a row is `ready` when its time has come and `scheduled` when it has not, by the database's clock alone.
-- What is alike in all jobs comes once, as a value, and its list is empty then; of the two one is always null.
-- Rides on nothing: plain rows have neither unique key nor idempotency key (those go through enqueue_keyed.sql).
with clock as materialized (select krilin.now() as now)
insert into krilin.jobs
    (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, cause, trace_parent, awaited,
     concurrency_key, cost, created_at)
select
    i.id, coalesce(i.user_id, $4), coalesce(i.app_id, $6), coalesce(i.kind, $8), coalesce(i.queue, $10), i.args::jsonb,
    case when due.at > clock.now then 'scheduled' else 'ready' end,
    coalesce(i.priority, $12), coalesce(i.max_attempts, $14), coalesce(due.at, clock.now), due.at,
    coalesce(i.cause, $20), coalesce(i.trace_parent, $22), coalesce(i.awaited, $24),
    coalesce(i.concurrency_key, $26), coalesce(i.cost, $28), clock.now
from clock,
    unnest($1::uuid[], $2::text[], $3::uuid[], $5::text[], $7::text[], $9::text[], $11::smallint[], $13::integer[],
           $15::timestamptz[], $17::interval[], $19::text[], $21::text[], $23::boolean[],
           $25::text[], $27::integer[])
    as i(id, args, user_id, app_id, kind, queue, priority, max_attempts, run_at, delay, cause, trace_parent, awaited,
         concurrency_key, cost),
    lateral (select coalesce(i.run_at, $16, clock.now + coalesce(i.delay, $18)) as at) as due
