-- cancel: ends a job that has not begun, or marks one that runs.
--
-- Invariants: from the moment of the mark no transaction can complete the job (complete.sql), so nothing that it does is
-- kept; its worker ends it. A job that begins or is put back while this looks is neither ended nor marked: no row.
-- Rides on jobs_pkey.
with ending as (
    delete from krilin.jobs
    where id = $1 and ($2::uuid is null or user_id = $2) and state <> 'running'
    returning *
),
history as (
    insert into krilin.job_history
        (id, user_id, app_id, kind, queue, args, state, priority, attempt, max_attempts, run_at, due_at, worker_id,
         started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, error, created_at, finished_at)
    select
        id, user_id, app_id, kind, queue, args, 'cancelled', priority, attempt, max_attempts, run_at, due_at, worker_id,
        started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, $3::jsonb, created_at, krilin.now()
    from ending
),
marked as (
    update krilin.jobs
    set stop_at = krilin.now(), stop_reason = 'cancelled'
    where id = $1 and ($2::uuid is null or user_id = $2) and state = 'running'
    returning id
)
select true as ended, awaited from ending
union all
select false, false from marked
