-- reap: frees the given jobs whose lease has run out.
--
-- Invariant: fenced per row. A job that was renewed, completed, cancelled or claimed again since it was looked at has
-- another token or a later lease_until and is not touched. The lost attempt counts; with none left the job is dead. One
-- that was cancelled while it ran is freed, and ends as cancelled by stop.sql.
-- Rides on jobs_pkey; for the `limit` and the `any` see end.sql.
with clock as materialized (select krilin.now() as now),
expired as (
    select j.id, j.attempt >= j.max_attempts and j.stop_reason is distinct from 'cancelled' as spent
    from krilin.jobs j, clock, (select * from unnest($1::uuid[], $2::uuid[]) as i(id, token) limit cardinality($1)) as i
    where j.id = any (array[i.id]) and j.lease_token = i.token and j.lease_until < clock.now
    for update of j skip locked
),
attempt as (
    insert into krilin.attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)
    select j.id, j.attempt, j.worker_id, j.started_at, clock.now, 'lost'
    from clock, expired join krilin.jobs j on j.id = any (array[expired.id])
    where not expired.spent
),
dead as (
    delete from krilin.jobs j using expired where j.id = any (array[expired.id]) and expired.spent returning j.*
),
history as (
    insert into krilin.job_history
        (id, user_id, app_id, kind, queue, args, state, priority, attempt, max_attempts, run_at, due_at, worker_id,
         started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, error, created_at, finished_at)
    select
        id, user_id, app_id, kind, queue, args, 'dead', priority, attempt, max_attempts, run_at, due_at, worker_id,
        started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, $3::jsonb, created_at, clock.now
    from dead, clock
),
freed as (
    update krilin.jobs j
    set state = 'ready', attempt = least(j.attempt, j.max_attempts - 1), lease_token = null, lease_until = null,
        worker_id = null
    from expired
    where j.id = any (array[expired.id]) and not expired.spent
    returning j.id, j.queue
)
select id, queue, false as dead, false as awaited from freed
union all
select id, queue, true, awaited from dead
