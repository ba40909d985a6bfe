-- enqueue_keyed: new jobs of which any may have a unique key, an idempotency key or both, one after the other.
--
-- Invariants and indexes are those of krilin.place_job (migrations/0006_enqueue.sql). Gives a row for each job, in order.
select placed.job_id, placed.outcome, placed.state, placed.replayed, placed.told
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::integer[],
            $9::timestamptz[], $10::interval[], $11::text[], $12::text[], $13::boolean[], $14::text[], $15::integer[],
            $16::text[], $17::interval[],
            $18::text[], $19::interval[], $20::text[], $21::bytea[], $22::jsonb[])
    with ordinality
    as i(id, user_id, app_id, kind, queue, args, priority, max_attempts, run_at, delay, cause, trace_parent, awaited,
         concurrency_key, cost, unique_key, period, on_conflict, max_wait, idempotency_key, request_hash, told, position)
cross join lateral krilin.place_job(
    i.id, i.user_id, i.app_id, i.kind, i.queue, i.args::jsonb, i.priority, i.max_attempts, i.run_at, i.delay, i.cause,
    i.trace_parent, i.awaited, i.unique_key, i.period, i.on_conflict, i.max_wait, i.idempotency_key, i.request_hash,
    i.told, i.concurrency_key, i.cost) as placed
order by i.position
