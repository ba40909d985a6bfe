-- put_back: attempts that ended without ending their job. The rows become pending again.
--
-- Invariant: only under the present lease token. `wait_ms` null means given back untouched: ready at once, at its old
-- place in the order, as if never claimed. `outcome` null writes no attempt.
-- Rides on jobs_pkey; for the `limit` and the `any` see end.sql.
with clock as materialized (select krilin.now() as now),
input as materialized (
    select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::boolean[], $5::text[], $6::text[])
    as i(id, token, wait_ms, spent, outcome, error)
    limit cardinality($1)
),
attempt as (
    insert into krilin.attempts (job_id, attempt, worker_id, started_at, finished_at, outcome, error)
    select j.id, j.attempt, j.worker_id, j.started_at, clock.now, i.outcome, i.error::jsonb
    from clock, input i join krilin.jobs j on j.id = any (array[i.id]) and j.lease_token = i.token
    where i.outcome is not null
)
update krilin.jobs j
set state = case when i.wait_ms > 0 then 'scheduled' else 'ready' end,
    run_at = case when i.wait_ms is null then j.run_at else clock.now + i.wait_ms * interval '1 millisecond' end,
    attempt = j.attempt - case when i.spent then 0 else 1 end,
    snoozes = j.snoozes + case when i.wait_ms is null or i.spent then 0 else 1 end,
    last_error = coalesce(i.error::jsonb, j.last_error),
    lease_token = null, lease_until = null, worker_id = null
from clock, input i
where j.id = any (array[i.id]) and j.lease_token = i.token
returning j.id
