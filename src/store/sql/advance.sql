-- advance: where schedules stand after they were judged.
--
-- Invariant: only rows that this transaction has locked (due.sql), in the same commit as their ledger rows and jobs.
-- Rides on schedules_pkey.
with clock as materialized (select krilin.now() as now)
update krilin.schedules s
set state = i.state, reason = i.reason, next_at = i.next_at, due_at = i.due_at, missed = i.missed,
    run_count = i.run_count, failure_count = i.failure_count, tzdata = $11,
    last_nominal_at = coalesce(i.last_nominal_at, s.last_nominal_at),
    last_fired_at = case when i.job_id is null then s.last_fired_at else clock.now end,
    last_job_id = coalesce(i.job_id, s.last_job_id),
    last_job_judged = case when i.job_id is null then s.last_job_judged or i.failure_count <> s.failure_count else false end,
    updated_at = case when i.state <> s.state then clock.now else s.updated_at end
from clock,
    unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::integer[], $7::integer[],
           $8::integer[], $9::timestamptz[], $10::uuid[])
    as i(id, state, reason, next_at, due_at, missed, run_count, failure_count, last_nominal_at, job_id)
where s.id = i.id
